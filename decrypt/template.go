package decrypt

import (
	"errors"
	"fmt"
	"maps"
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
