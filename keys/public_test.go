package keys

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/test/corpus"
)

func TestAnOlderAgentsPublicKeysAreRead(t *testing.T) {
	t.Parallel()
	all, err := generations()
	if err != nil {
		t.Fatal(err)
	}
	want, err := (&Ring{Generations: []Generation{all[1], all[0]}}).Public()
	if err != nil {
		t.Fatal(err)
	}
	data := want.data()
	if got, err := ParsePublic(data); err != nil || len(got.Generations) != 2 || got.Generations[0].BackedUp != want.Generations[0].BackedUp {
		t.Fatalf("got %+v, %v", got.Generations, err)
	}
	delete(data, GenerationsKey)
	got, err := ParsePublic(data)
	if err != nil || got.Generations != nil || got.Newest() != 0 || len(got.Recipients) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{`{"version":1,"generations":[],"more":1}`, `{"version":1,"generations":[]} 2`} {
		data[GenerationsKey] = bad
		if _, err := ParsePublic(data); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
	data[GenerationsKey] = `{"version":2,"generations":[]}`
	if _, err := ParsePublic(data); err == nil || !strings.Contains(err.Error(), "newer seal") {
		t.Errorf("of a newer agent: got %v", err)
	}
}

// FuzzParseGenerations: what is read is written the same, and an error quotes nothing.
func FuzzParseGenerations(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseGenerations(text)
		if err != nil {
			c.Saw("an error")
			if got != nil {
				t.Errorf("got %v beside the error %v", got, err)
			}
			if len(err.Error()) > 80 {
				t.Errorf("a long error: %v", err)
			}
			return
		}
		if len(got) == 0 {
			return
		}
		c.Saw("generations")
		written := Public{Generations: got}.data()[GenerationsKey]
		again, err := parseGenerations([]byte(written))
		if diff := cmp.Diff(got, again); err != nil || diff != "" {
			t.Errorf("%v; once -, again +:\n%s", err, diff)
		}
	})
	c.Reached("an error", "generations")
}
