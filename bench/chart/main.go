// Command chart draws what `go run ./bench -json FILE` measured: how time, memory
// and requests grow with the number of objects. It is a module of its own, since
// nothing else needs a library for charts.
//
//	go run . FILE.json... OUT.svg
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("want files of measured rows, and the SVG file to write")
	}
	var runs []measuredRun
	for _, file := range args[:len(args)-1] {
		more, err := read(file)
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		runs = append(runs, more...)
	}
	if len(runs) == 0 {
		return errors.New("no runs to draw")
	}
	slices.SortStableFunc(runs, func(a, b measuredRun) int { return a.Objects - b.Objects })
	svg, err := drawn(panels(runs), caption(runs))
	if err != nil {
		return err
	}
	return os.WriteFile(args[len(args)-1], svg, 0o644)
}

// measuredRun is what package bench writes of one run.
type measuredRun struct {
	Objects int           `json:"objects"`
	Date    string        `json:"date"`
	Machine string        `json:"machine"`
	Rows    []measuredRow `json:"rows"`
}

type measuredRow struct {
	Work      string             `json:"work"`
	Seconds   *float64           `json:"seconds"`
	Requests  *int               `json:"requests"`
	PeakMB    *float64           `json:"peakMB"`
	SettledMB *float64           `json:"settledMB"`
	Parts     map[string]float64 `json:"partsSeconds"`
}

func read(file string) ([]measuredRun, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var g struct {
		Runs []measuredRun `json:"runs"`
	}
	return g.Runs, json.Unmarshal(b, &g)
}
