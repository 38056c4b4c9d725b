package decrypt

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// sandbox counts what a template does. Its limits are panics: text/template
// turns a panic of a function into an error.
type sandbox struct {
	steps, work int
	deadline    time.Time
}

func (s *sandbox) tick() string {
	if s.steps++; s.steps > MaxTemplateSteps {
		panic(errTemplateLimit(fmt.Sprintf("it takes more than %d steps", MaxTemplateSteps)))
	}
	if time.Now().After(s.deadline) {
		panic(errTemplateLimit("it takes longer than " + MaxTemplateTime.String()))
	}
	return ""
}

func (s *sandbox) print(v any) any {
	s.spend(sizeOf(reflect.ValueOf(v), 0, MaxTemplateWork))
	return v
}

// spend is called before memory is used.
func (s *sandbox) spend(n int) {
	if n < 0 || n > MaxTemplateWork-s.work {
		panic(errTemplateLimit(fmt.Sprintf("it makes more than %d MiB of values, or nests them too deep", MaxTemplateWork>>20)))
	}
	s.work += n
}

// guard wraps a function so that it is counted, and stopped before it makes
// something huge.
func (s *sandbox) guard(name string, f any) any {
	v := reflect.ValueOf(f)
	return reflect.MakeFunc(v.Type(), func(args []reflect.Value) []reflect.Value {
		s.tick()
		s.spend(estimate(name, args))
		var out []reflect.Value
		if v.Type().IsVariadic() {
			out = v.CallSlice(args)
		} else {
			out = v.Call(args)
		}
		for _, o := range out {
			s.spend(sizeOf(o, 0, MaxTemplateWork))
		}
		return out
	}).Interface()
}

// estimate bounds what a function makes of its arguments, in bytes. Most make
// at most a few times as much; the others are named.
func estimate(name string, args []reflect.Value) int {
	all := 0
	for _, a := range args {
		all += sizeOf(a, 0, MaxTemplateWork)
		if all > MaxTemplateWork {
			return MaxTemplateWork + 1
		}
	}
	number := func(i int) int { return integer(args, i) }
	size := func(i int) int {
		if i >= len(args) {
			return 0
		}
		return sizeOf(args[i], 0, MaxTemplateWork)
	}
	switch name {
	case "repeat":
		return times(number(0), size(1))
	case "until":
		return times(max(number(0), -number(0)), 8)
	case "untilStep":
		return times(steps(number(0), number(1), number(2)), 8)
	case "seq":
		return sequence(args)
	case "indent", "nindent":
		return times(max(number(0), 0)+1, size(1)+1)
	case "wrap":
		return times(size(1)+1, 2)
	case "wrapWith", "replace", "join":
		return times(size(0)+1, all)
	case "regexReplaceAll", "mustRegexReplaceAll", "regexReplaceAllLiteral", "mustRegexReplaceAllLiteral":
		return times(size(1)+1, size(2)+1)
	case "printf":
		return formatted(args, all)
	case "randAlphaNum", "randAlpha", "randAscii", "randNumeric", "randBytes":
		return number(0)
	case "toPrettyJson", "mustToPrettyJson":
		return times(MaxTemplateDepth, all)
	default:
		return all
	}
}

// times multiplies and saturates; less than nothing is nothing.
func times(a, b int) int {
	a, b = max(a, 0), max(b, 0)
	if a > MaxTemplateWork || b > MaxTemplateWork || a*b > MaxTemplateWork {
		return MaxTemplateWork + 1
	}
	return a * b
}

func steps(start, stop, step int) int {
	const far = 1 << 40 // so that nothing overflows
	if max(start, -start, stop, -stop) > far {
		return far
	}
	if step == 0 || (stop-start > 0) != (step > 0) {
		return 0
	}
	return (stop-start)/step + 1
}

func sequence(args []reflect.Value) int {
	if len(args) != 1 || args[0].Kind() != reflect.Slice { // func(...int)
		return MaxTemplateWork + 1
	}
	var n []int
	for i := range min(args[0].Len(), 3) {
		n = append(n, int(args[0].Index(i).Int()))
	}
	switch len(n) {
	case 1:
		return times(max(n[0], -n[0])+2, 22)
	case 2:
		return times(max(n[1]-n[0], n[0]-n[1])+1, 22)
	case 3:
		return times(steps(n[0], n[2], n[1]), 22)
	}
	return 0
}

var longWidth = regexp.MustCompile(`\*|[0-9]{4}`)

func formatted(args []reflect.Value, all int) int {
	format := ""
	if len(args) > 0 && args[0].Kind() == reflect.String {
		format = args[0].String()
	}
	if longWidth.MatchString(format) {
		return MaxTemplateWork + 1
	}
	verbs := strings.Count(format, "%")
	return times(verbs+1, all+1000)
}

func integer(args []reflect.Value, i int) int {
	if i >= len(args) {
		return 0
	}
	v := args[i]
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch {
	case v.CanInt():
		return int(v.Int())
	case v.CanUint():
		return int(v.Uint())
	case v.CanFloat():
		return int(v.Float())
	case v.Kind() == reflect.String:
		n, err := strconv.Atoi(v.String())
		if err != nil {
			return 0
		}
		return n
	}
	return 0
}

// sizeOf is about as many bytes as a value would be if it were written out,
// what is shared counted each time, or more than limit, also for one that is
// nested too deep or contains itself.
func sizeOf(v reflect.Value, depth, limit int) int {
	const word = 16
	if depth > MaxTemplateDepth || limit < 0 {
		return MaxTemplateWork + 1
	}
	switch v.Kind() {
	case reflect.Invalid:
		return word
	case reflect.String:
		return word + v.Len()
	case reflect.Interface, reflect.Pointer:
		if v.IsNil() {
			return word
		}
		return sizeOf(v.Elem(), depth+1, limit)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return word + v.Len()
		}
		total := word
		for i := range v.Len() {
			if total += sizeOf(v.Index(i), depth+1, limit-total); total > limit {
				return MaxTemplateWork + 1
			}
		}
		return total
	case reflect.Map:
		total := word
		for _, k := range v.MapKeys() {
			total += sizeOf(k, depth+1, limit-total)
			if total += sizeOf(v.MapIndex(k), depth+1, limit-total); total > limit {
				return MaxTemplateWork + 1
			}
		}
		return total
	default:
		return word
	}
}
