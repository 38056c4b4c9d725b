package harness

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestWithoutDebianTheErrorSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := FetchBuildah(t.Context(), io.Discard)
	if !errors.Is(err, ErrNoBuildah) || !strings.Contains(err.Error(), "install buildah") {
		t.Errorf("got %v", err)
	}
}
