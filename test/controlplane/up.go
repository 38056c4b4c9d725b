package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// up starts the cluster, says so on stdout and obeys stdin until told to stop.
// It returns nil after an orderly end that somebody asked for, during the start
// as well; an error when the start failed or a child died.
func up(ctx context.Context, cfg config, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := readLines(stdin, cancel)

	if err := os.MkdirAll(cfg.dir, 0o700); err != nil {
		return err
	}
	c, err := newCluster(cfg)
	if err != nil {
		return err
	}
	err = c.start(ctx)
	if err == nil {
		err = json.NewEncoder(stdout).Encode(c.ready())
	}
	if err == nil {
		err = c.obey(ctx, lines, stdout)
	}
	asked := ctx.Err() != nil
	stopErr := c.stop()
	if asked {
		err = nil // whatever failed, failed because we were told to stop
	}
	if err = errors.Join(err, stopErr); err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, cfg.dir)
	}
	if cfg.remove {
		return os.RemoveAll(cfg.dir)
	}
	return nil
}

// readLines hands on the lines of r and calls ended at its end. Its goroutine
// lives as long as the process: a read of standard input can not be interrupted.
func readLines(r io.Reader, ended func()) <-chan string {
	lines := make(chan string)
	go func() {
		defer ended()
		scanner := bufio.NewScanner(r)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	return lines
}

// obey runs commands until ctx ends, "stop" arrives or a child dies by itself.
func (c *cluster) obey(ctx context.Context, lines <-chan string, stdout io.Writer) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.etcd.done:
			return c.etcd.died()
		case <-c.controllerManager.done:
			return c.controllerManager.died()
		case <-c.apiserver.exited():
			return c.apiserver.died()
		case line := <-lines:
			switch line {
			case "stop":
				err := c.stop()
				answer(stdout, err)
				return err
			case "stop-apiserver":
				answer(stdout, c.stopAPIServer())
			case "start-apiserver":
				_, err := c.startAPIServer(ctx)
				answer(stdout, err)
			default:
				answer(stdout, fmt.Errorf("unknown command: want stop, stop-apiserver or start-apiserver"))
			}
		}
	}
}
