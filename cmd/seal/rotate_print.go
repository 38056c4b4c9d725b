package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// rotateReport is the stable form of `seal rotate -o json`.
type rotateReport struct {
	Files    []rotatedFile `json:"files"`
	Findings []finding     `json:"findings,omitempty"` // of --check
	Unknown  []finding     `json:"unknown,omitempty"`  // likewise: what can not be told
	// ReplaceAtSource lists, with --emergency, the values that a leaked key opens.
	ReplaceAtSource []place `json:"replaceAtSource,omitempty"`
	Commit          string  `json:"commit,omitempty"`
}

type rotatedFile struct {
	Path     string `json:"path"`
	Kind     string `json:"kind"` // SOPS, SealedSecret, SOPS+SealedSecret
	Status   string `json:"status"`
	SealedTo string `json:"sealedTo,omitempty"`
	Error    string `json:"error,omitempty"`
	Hint     string `json:"hint,omitempty"`
}

// The states of a file.
const (
	statusResealed    = "Resealed"
	statusReformatted = "Reformatted" // resealed, and written by sops: the layout may differ
	statusDone        = "AlreadyDone" // by a run before this one, which was interrupted
	statusPlanned     = "WouldReseal"
	statusFailed      = "Failed"
	statusNoKey       = "NoKey"
	statusFound       = "Found"
)

func (p plannedFile) status() string {
	switch {
	case p.err != nil && lacksKey(p.err):
		return statusNoKey
	case p.err != nil:
		return statusFailed
	case p.reformatted:
		return statusReformatted
	case p.changed:
		return statusResealed
	case p.done:
		return statusDone
	default:
		return statusPlanned
	}
}

func (o rotateOptions) report(plan []plannedFile) rotateReport {
	r := rotateReport{Files: []rotatedFile{}}
	for _, p := range plan {
		f := rotatedFile{Path: p.path, Kind: p.kinds(), Status: p.status(), SealedTo: p.sealedTo()}
		if p.err != nil {
			f.Error, f.SealedTo = p.err.Error(), ""
			var h *hinted
			if errors.As(p.err, &h) {
				f.Hint = h.hint
			}
		}
		r.Files = append(r.Files, f)
		if o.emergency {
			r.ReplaceAtSource = append(r.ReplaceAtSource, p.places()...)
		}
	}
	return r
}

func (o rotateOptions) print(cmd *cobra.Command, r rotateReport) error {
	if o.output != "" {
		b, err := encode(r, o.output)
		if err != nil {
			return err
		}
		return write(cmd, "", b)
	}
	out, talk := cmd.OutOrStdout(), cmd.ErrOrStderr()
	words := map[string]string{
		statusResealed: "sealed anew", statusReformatted: "sealed anew, and laid out anew by sops", statusDone: "done already", statusPlanned: "would be sealed anew",
	}
	for _, f := range r.Files {
		if f.Error != "" {
			fmt.Fprintf(talk, "error: %s: %s\n", f.Path, f.Error)
			if f.Hint != "" {
				fmt.Fprintln(talk, "hint:", f.Hint)
			}
			continue
		}
		fmt.Fprintf(out, "%s: %s", f.Path, words[f.Status])
		if f.Status == statusPlanned {
			fmt.Fprintf(out, ", to %s", f.SealedTo)
		}
		fmt.Fprintln(out)
	}
	if len(r.Files) == 0 {
		fmt.Fprintln(talk, "no sealed file found")
	}
	if len(r.ReplaceAtSource) > 0 {
		fmt.Fprintln(out, "\nWhoever holds the old key can read these in git's history. Replace each at its source:")
		for _, p := range r.ReplaceAtSource {
			fmt.Fprintln(out, p)
		}
	}
	if r.Commit != "" {
		fmt.Fprintln(talk, "committed", r.Commit)
	}
	return nil
}

func (p place) String() string {
	if p.Object == "" {
		return p.Path + ": " + p.Field
	}
	return p.Path + ": " + p.Object + ": " + p.Field
}

func (o rotateOptions) printDryRun(cmd *cobra.Command, plan []plannedFile) error {
	failed := 0
	for _, p := range plan {
		if p.err != nil {
			failed++
		}
	}
	if err := o.print(cmd, o.report(plan)); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d files could not be sealed anew", failed, len(plan))
	}
	return nil
}

func (o rotateOptions) printCheck(cmd *cobra.Command, plan []plannedFile) error {
	r := rotateReport{Files: []rotatedFile{}}
	for _, p := range plan {
		found, unknown := p.findings()
		r.Findings, r.Unknown = append(r.Findings, found...), append(r.Unknown, unknown...)
		r.Files = append(r.Files, rotatedFile{Path: p.path, Kind: p.kinds(), Status: statusFound})
	}
	if o.output != "" {
		if err := o.print(cmd, r); err != nil {
			return err
		}
	} else {
		for _, f := range r.Findings {
			fmt.Fprintln(cmd.OutOrStdout(), f)
		}
		for _, f := range r.Unknown {
			fmt.Fprintln(cmd.ErrOrStderr(), "note:", f)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%d sealed files\n", len(r.Files))
	}
	if n := len(r.Findings); n > 0 {
		return hint(&findings{fmt.Sprintf("%d findings", n)}, "run `seal rotate`")
	}
	return nil
}

func (f finding) String() string {
	at := f.Path
	if f.Line > 0 {
		at = fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	if f.Object != "" {
		at += ": " + f.Object + ": " + f.Field
	}
	return at + ": " + f.Message
}

// progress is one line that is written over again, where somebody looks at it.
type progress struct {
	mu    sync.Mutex
	out   io.Writer // nil where nobody does
	erase string
	n, of int
}

func newProgress(out io.Writer, of int) *progress {
	p := &progress{of: of, erase: "\r\x1b[K"}
	if f, ok := out.(*os.File); ok && of > 0 && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.out = out
	}
	if os.Getenv("NO_COLOR") != "" { // whoever wants no colours may not want escapes either
		p.erase = "\r"
	}
	return p
}

func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n += n; p.out != nil && n > 0 {
		fmt.Fprintf(p.out, "%s%d/%d files", p.erase, p.n, p.of)
	}
}

func (p *progress) end() {
	if p.out != nil {
		fmt.Fprintln(p.out)
	}
}
