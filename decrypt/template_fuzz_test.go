package decrypt

import (
	"strings"
	"testing"
	"time"

	"github.com/gitseal/gitseal/test/corpus"
)

// FuzzTemplates: a template gives a text within its limits, in bounded time, or an
// error that does not show a value.
func FuzzTemplates(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, text, value string) {
		if len(text) > 1<<12 || len(value) > 1<<12 {
			return
		}
		p, err := parseTemplate("k", text)
		if err != nil {
			c.Saw("not parsed")
			return
		}
		start := time.Now()
		out, err := p.render(map[string]string{"a": value, "b": canary})
		if took := time.Since(start); took > 8*MaxTemplateTime {
			t.Errorf("took %s", took)
		}
		if len(out) > MaxTemplateOutput || err != nil && out != nil {
			t.Errorf("%d bytes and %v", len(out), err)
		}
		if err == nil {
			c.Saw("rendered")
			return
		}
		c.Saw("not rendered")
		if strings.Contains(err.Error(), "more than") || strings.Contains(err.Error(), "longer than") || strings.Contains(err.Error(), "larger than") {
			c.Saw("a limit")
		}
		if len(value) > 8 && !strings.Contains(text, value) && strings.Contains(err.Error(), value) {
			t.Errorf("the error shows the value: %v", err)
		}
		if !shows([]byte(text)) {
			assertNoCanary(t, err)
		}
	})
	c.Reached("not parsed", "rendered", "not rendered", "a limit")
}
