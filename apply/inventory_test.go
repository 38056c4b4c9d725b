package apply

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestAnEntryIsStoredWhole would see two fields of the same short name, of which
// JSON keeps one.
func TestAnEntryIsStoredWhole(t *testing.T) {
	t.Parallel()
	want := shardEntry{"group", "kind", "namespace", "name", Entry{
		Version: "v1", Resource: "things", Phase: Applied, Input: "input", Body: "body", Evidence: Evidence{UID: "uid", Fields: "fields", Replicas: true},
		Leaving: "/a", Ignored: "{}", Wave: 1, Keep: true,
	}}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got shardEntry
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Entry{})); diff != "" {
		t.Error(diff)
	}
}
