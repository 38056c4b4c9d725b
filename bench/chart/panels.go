package main

import (
	"fmt"
	"slices"
	"strings"
)

// Rows by the names that package bench gives them.
const (
	rawFloor       = "raw floor"
	todaysInterval = "interval of agents of today"
	firstApply     = "first apply (agent --once)"
	nothingChanged = "nothing changed (agent --once)"
	idle           = "idle, 15 looks at git"
)

// panel is one of the charts, over the number of objects.
type panel struct {
	title, unit string
	lines       []line
}

// line is one thing that was measured at several sizes.
type line struct {
	name   string
	look   int // which colour, mark and dashes; the same thing looks the same in each panel
	points [][2]float64
}

// What looks alike.
const (
	looksFirst = iota
	looksFloor
	looksPartOfFloor
	looksToday
	looksNothing
	looksIdle
)

func panels(runs []measuredRun) []panel {
	of := func(work string, value func(measuredRow) (float64, bool)) [][2]float64 {
		var points [][2]float64
		for _, r := range runs {
			i := slices.IndexFunc(r.Rows, func(m measuredRow) bool { return m.Work == work })
			if i < 0 {
				continue
			}
			if v, ok := value(r.Rows[i]); ok && v > 0 { // the scale has no zero
				points = append(points, [2]float64{float64(r.Objects), v})
			}
		}
		return points
	}
	known := func(v *float64) (float64, bool) {
		if v == nil {
			return 0, false
		}
		return *v, true
	}
	seconds := func(m measuredRow) (float64, bool) { return known(m.Seconds) }
	peak := func(m measuredRow) (float64, bool) { return known(m.PeakMB) }
	settled := func(m measuredRow) (float64, bool) { return known(m.SettledMB) }
	requests := func(m measuredRow) (float64, bool) {
		if m.Requests == nil {
			return 0, false
		}
		return float64(*m.Requests), true
	}
	withoutBuild := func(m measuredRow) (float64, bool) {
		sum := m.Parts["git"] + m.Parts["sops"] + m.Parts["patches"]
		return sum, sum > 0
	}
	return []panel{
		{"Time", "seconds", []line{
			{"raw floor of a first apply", looksFloor, of(rawFloor, seconds)},
			{"raw floor without its build", looksPartOfFloor, of(rawFloor, withoutBuild)},
			{"gitseal, first apply", looksFirst, of(firstApply, seconds)},
			{"agents of today, interval\nin which nothing changed", looksToday, of(todaysInterval, seconds)},
			{"gitseal started once,\nnothing changed", looksNothing, of(nothingChanged, seconds)},
		}},
		{"Memory of gitseal", "MB resident", []line{
			{"first apply, peak", looksFirst, of(firstApply, peak)},
			{"started once, nothing\nchanged, peak", looksNothing, of(nothingChanged, peak)},
			{"running, settled", looksIdle, of(idle, settled)},
		}},
		{"Requests when nothing changed", "requests", []line{
			{"agents of today,\none interval", looksToday, of(todaysInterval, requests)},
			{"gitseal started once", looksNothing, of(nothingChanged, requests)},
			{"gitseal running,\n15 intervals", looksIdle, of(idle, requests)},
		}},
	}
}

// caption says where the figures are from.
func caption(runs []measuredRun) string {
	var where []string
	for _, r := range runs {
		if text := fmt.Sprintf("%s (%s)", r.Date, r.Machine); !slices.Contains(where, text) {
			where = append(where, text)
		}
	}
	return "make bench, " + strings.Join(where, "; ")
}
