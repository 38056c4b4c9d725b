package apply

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAnotherSyncIsTheOneThatOwnsALabel(t *testing.T) {
	t.Parallel()
	const field = ".metadata.labels." + SyncLabel
	for name, c := range map[string]struct {
		managers []string
		want     string
	}{
		"nobody":                      {nil, ""},
		"ourselves":                   {[]string{"gitseal.ns.us"}, ""},
		"somebody":                    {[]string{"kubectl", "gitseal.ns.us"}, "kubectl"},
		"a Sync, and somebody":        {[]string{"gitseal.ns.other", "kubectl"}, "gitseal.ns.other"},
		"somebody before, and a Sync": {[]string{"a-tool", "gitseal.ns.other"}, "gitseal.ns.other"},
	} {
		causes := []metav1.StatusCause{{Message: `conflict with "gitseal.ns.third"`, Field: ".data.v"}}
		for _, m := range c.managers {
			causes = append(causes, metav1.StatusCause{Message: `conflict with "` + m + `" using v1`, Field: field})
		}
		if got := labelledBy(apierrors.NewApplyConflict(causes, "conflict"), "gitseal.ns.us"); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
