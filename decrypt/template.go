package decrypt

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/Masterminds/sprig/v3"
)

// Limits of one key of spec.template.data. Whoever may commit may write one, so
// that each costs bounded time and memory. They hold for what the functions
// make, before they make it.
const (
	MaxTemplateOutput = 1 << 20  // bytes; a Secret holds no more
	MaxTemplateWork   = 32 << 20 // bytes that functions may make while it is rendered
	MaxTemplateSteps  = 100_000  // calls of functions and turns of loops
	MaxTemplateDepth  = 64       // lists and maps within one another
	MaxTemplateTime   = 5 * time.Second
)

// templateError never holds a value: text/template and sprig put values and
// whole expressions into their errors.
type templateError struct {
	key, at, what string
}

func (e *templateError) Error() string {
	return fmt.Sprintf("spec.template.data.%s: %s%s", e.key, e.at, e.what)
}

// errTemplateLimit is what the sandbox stops a template with.
type errTemplateLimit string

func (e errTemplateLimit) Error() string { return string(e) }

// templateFunctions are those of sealed-secrets: text/template and sprig, less
// what reads the environment or the network.
func templateFunctions() template.FuncMap {
	f := sprig.GenericFuncMap()
	for _, unsafe := range []string{"env", "expandenv", "getHostByName"} {
		delete(f, unsafe)
	}
	// The built-in ones that make text.
	f["print"], f["printf"], f["println"] = fmt.Sprint, fmt.Sprintf, fmt.Sprintln
	f["html"], f["js"], f["urlquery"] = template.HTMLEscaper, template.JSEscaper, template.URLQueryEscaper
	return f
}

// volatileFunctions give another result each time.
var volatileFunctions = map[string]bool{
	"now": true, "ago": true, "date": true, "dateInZone": true, "date_in_zone": true, "htmlDate": true, "htmlDateInZone": true, "durationRound": true,
	"randAlphaNum": true, "randAlpha": true, "randAscii": true, "randNumeric": true, "randBytes": true, "randInt": true, "shuffle": true, "uuidv4": true,
	"bcrypt": true, "htpasswd": true, "encryptAES": true, "keys": true, "values": true,
	"genPrivateKey": true, "genCA": true, "genCAWithKey": true, "genSelfSignedCert": true, "genSelfSignedCertWithKey": true, "genSignedCert": true, "genSignedCertWithKey": true,
}

// parsedTemplate is one key's template, rewritten so that the sandbox sees each
// turn of a loop and each value that is printed.
type parsedTemplate struct {
	key      string
	tree     *template.Template
	box      *sandbox
	volatile bool
}

// parseTemplate reads a template. Its error may quote the template, which lies
// in git in the clear.
func parseTemplate(key, text string) (*parsedTemplate, error) {
	p := &parsedTemplate{key: key, box: &sandbox{}}
	functions := templateFunctions()
	for name, f := range functions {
		functions[name] = p.box.guard(name, f)
	}
	functions[tickFunction], functions[printFunction] = p.box.tick, p.box.print
	var err error
	if p.tree, err = template.New(key).Funcs(functions).Parse(text); err != nil {
		return nil, &templateError{key: key, what: strings.TrimPrefix(err.Error(), "template: ")}
	}
	for _, t := range p.tree.Templates() {
		if t.Tree != nil && t.Root != nil {
			p.rewrite(t.Root)
			t.Root.Nodes = slices.Insert(t.Root.Nodes, 0, tickNode())
		}
	}
	return p, nil
}

// render renders over the opened values. Use one at a time.
func (p *parsedTemplate) render(values map[string]string) ([]byte, error) {
	*p.box = sandbox{deadline: time.Now().Add(MaxTemplateTime)}
	var out limitedBuffer
	if err := p.tree.Execute(&out, values); err != nil {
		return nil, p.failure(err)
	}
	return out.b, nil
}

var templatePosition = regexp.MustCompile(`^template: .*?:(\d+)(?::(\d+))?: executing `)

func (p *parsedTemplate) failure(err error) error {
	e := &templateError{key: p.key, what: "it could not be rendered (what went wrong is not shown, since it may hold a value)"}
	if limit := errTemplateLimit(""); errors.As(err, &limit) {
		e.what = string(limit)
	}
	if m := templatePosition.FindStringSubmatch(err.Error()); m != nil && !strings.ContainsAny(p.key, ":\n") {
		e.at = "line " + m[1]
		if m[2] != "" {
			e.at += ", column " + m[2]
		}
		e.at += ": "
	}
	return e
}

type limitedBuffer struct{ b []byte }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > MaxTemplateOutput {
		return 0, errTemplateLimit("its output is larger than " + strconv.Itoa(MaxTemplateOutput>>20) + " MiB")
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

const tickFunction, printFunction = "gitsealTick", "gitsealPrint"

// snippet parses a template of ours, for nodes to put into others.
func snippet(text string) *parse.ActionNode {
	nothing := func() string { return "" }
	t := template.Must(template.New("").Funcs(template.FuncMap{tickFunction: nothing, printFunction: func(any) string { return "" }}).Parse(text))
	return t.Root.Nodes[0].(*parse.ActionNode)
}

func tickNode() parse.Node { return snippet("{{" + tickFunction + "}}") }

// rewrite puts a tick into each loop, sends what is printed through print, and
// notes whether a volatile function occurs.
func (p *parsedTemplate) rewrite(n parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, c := range n.Nodes {
			p.rewrite(c)
		}
	case *parse.ActionNode:
		p.look(n.Pipe)
		if len(n.Pipe.Decl) == 0 {
			n.Pipe.Cmds = append(n.Pipe.Cmds, snippet("{{1|" + printFunction + "}}").Pipe.Cmds[1])
		}
	case *parse.IfNode:
		p.branch(&n.BranchNode)
	case *parse.WithNode:
		p.branch(&n.BranchNode)
	case *parse.RangeNode:
		p.branch(&n.BranchNode)
		n.List.Nodes = slices.Insert(n.List.Nodes, 0, tickNode())
	case *parse.TemplateNode:
		if n.Pipe != nil {
			p.look(n.Pipe)
		}
	}
}

func (p *parsedTemplate) branch(n *parse.BranchNode) {
	p.look(n.Pipe)
	p.rewrite(n.List)
	p.rewrite(n.ElseList)
}

func (p *parsedTemplate) look(n parse.Node) {
	switch n := n.(type) {
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			p.look(c)
		}
	case *parse.CommandNode:
		for _, a := range n.Args {
			p.look(a)
		}
	case *parse.ChainNode:
		p.look(n.Node)
	case *parse.IdentifierNode:
		p.volatile = p.volatile || volatileFunctions[n.Ident]
	}
}

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

// parseTemplates parses all keys, in order.
func parseTemplates(texts map[string]string) ([]*parsedTemplate, error) {
	var out []*parsedTemplate
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		p, err := parseTemplate(key, texts[key])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}
