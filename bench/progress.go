package main

import (
	"fmt"
	"os"
	"time"
)

// patience is the longest silence of a step.
const patience = 10 * time.Second

// step does something that may take long, and says meanwhile that it goes on and
// how far it is; far may be nil.
func step(what string, far func() string, do func() error) error {
	stop, stopped := make(chan struct{}), make(chan struct{})
	start := time.Now()
	go func() {
		defer close(stopped)
		tick := time.NewTicker(patience)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			text := ""
			if far != nil {
				text = ", " + far()
			}
			fmt.Fprintf(os.Stderr, "  %s… %s%s\n", what, time.Since(start).Round(time.Second), text)
		}
	}()
	err := do()
	close(stop)
	<-stopped
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
