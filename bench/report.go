package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// What is measured; bench/chart knows the rows by these names.
const (
	rawFloor       = "raw floor"
	todaysInterval = "interval of agents of today"
	firstApply     = "first apply (agent --once)"
	nothingChanged = "nothing changed (agent --once)"
	restarted      = "restart, nothing changed"
	idle           = "idle, 15 looks at git"
	oneFile        = "one file changed"
	drifted        = "drift, edit to repaired"
)

// measured is one row of the table. What was not measured is nil.
type measured struct {
	Work       string             `json:"work"`
	Seconds    *float64           `json:"seconds,omitempty"`
	OfFloor    *float64           `json:"ofFloor,omitempty"`
	Requests   *int               `json:"requests,omitempty"`
	ForObjects *int               `json:"requestsForObjects,omitempty"`
	PeakMB     *float64           `json:"peakMB,omitempty"`
	SettledMB  *float64           `json:"settledMB,omitempty"`
	Parts      map[string]float64 `json:"partsSeconds,omitempty"`
	Note       string             `json:"note,omitempty"`
}

// report is one run over one tree.
type report struct {
	Objects int        `json:"objects"`
	Date    string     `json:"date"`
	Machine string     `json:"machine"`
	Rows    []measured `json:"rows"`

	floor time.Duration // 0 where it was not measured as a whole
}

func newReport(objects int) *report {
	return &report{
		Objects: objects, Date: time.Now().Format(time.DateOnly),
		Machine: fmt.Sprintf("%d CPUs, %s, %s", runtime.NumCPU(), runtime.GOARCH, runtime.Version()),
	}
}

func (r *report) header() {
	fmt.Printf("%d objects, %s\n\n%-34s %9s %9s %9s %8s\n", r.Objects, r.Machine, "work", "time", "requests", "of floor", "MB")
}

// add prints a row and keeps it.
func (r *report) add(m measured) {
	if m.Seconds != nil && r.floor > 0 && m.Work != drifted {
		share := *m.Seconds / r.floor.Seconds()
		m.OfFloor = &share
	}
	memory := m.PeakMB
	if memory == nil {
		memory = m.SettledMB
	}
	requests := "-"
	if m.Requests != nil {
		requests = strconv.Itoa(*m.Requests)
	}
	took := "-"
	if m.Seconds != nil {
		took = ms(time.Duration(*m.Seconds * float64(time.Second)))
	}
	fmt.Printf("%-34s %9s %9s %9s %8s   %s\n", m.Work, took, requests, number(m.OfFloor, 2), number(memory, 0), m.Note)
	r.Rows = append(r.Rows, m)
}

func number(v *float64, digits int) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', digits, 64)
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

func seconds(d time.Duration) *float64 {
	s := d.Round(time.Microsecond).Seconds()
	return &s
}

// growth is a file of runs over trees of different sizes.
type growth struct {
	Runs []*report `json:"runs"`
}

// save puts the run into the file, in place of one over a tree of the same size.
func (r *report) save(file string) error {
	var g growth
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", file, err)
	}
	g.Runs = append(slices.DeleteFunc(g.Runs, func(o *report) bool { return o.Objects == r.Objects }), r)
	slices.SortFunc(g.Runs, func(a, b *report) int { return a.Objects - b.Objects })
	if b, err = json.MarshalIndent(g, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
