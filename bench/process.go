package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"
)

// megabytes is nil for what is not known.
func megabytes(mb float64) *float64 {
	if mb == 0 {
		return nil
	}
	mb = math.Round(mb*10) / 10
	return &mb
}

// resident is the memory of a process in MB; 0 where there is no /proc.
func resident(pid int) float64 { return ofStatus(pid, "VmRSS") }

// peak is the most memory that a process had so far, in MB; 0 after its end, and
// where there is no /proc. The Maxrss that a parent gets of its child is of no use:
// in Linux it counts what the parent itself had when it started the child.
func peak(pid int) float64 { return ofStatus(pid, "VmHWM") }

func ofStatus(pid int, field string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		var kb float64
		if n, _ := fmt.Sscanf(line, field+": %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}

// watchPeak looks at a process until the returned function is called, which gives
// the most memory that it had.
func watchPeak(pid int) func() float64 {
	stop, most := make(chan struct{}), make(chan float64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		var mb float64
		for {
			mb = max(mb, peak(pid))
			select {
			case <-stop:
				most <- mb
				return
			case <-tick.C:
			}
		}
	}()
	return func() float64 { close(stop); return <-most }
}
