// Command yardstick makes the pass that agents of today make at each interval: a
// GET and a server-side dry run for each object, with fluxcd/pkg/ssa, four at once
// as kustomize-controller does. It is a module of its own, since nothing else needs
// that library. Objects come as a JSON list on standard input; after a first pass,
// which applies them, it prints how long a second one takes, in milliseconds.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/fluxcd/pkg/ssa"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "cluster")
	agent := flag.String("user-agent", "yardstick", "of the second pass")
	flag.Parse()
	log.SetLogger(logr.Discard())
	if err := run(context.Background(), *kubeconfig, *agent); err != nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, agent string) error {
	var list []map[string]any
	if err := json.NewDecoder(os.Stdin).Decode(&list); err != nil {
		return fmt.Errorf("read the objects: %w", err)
	}
	if err := pass(ctx, kubeconfig, agent+"-first", list); err != nil {
		return err
	}
	start := time.Now()
	if err := pass(ctx, kubeconfig, agent, list); err != nil {
		return err
	}
	fmt.Println(time.Since(start).Milliseconds())
	return nil
}

func pass(ctx context.Context, kubeconfig, agent string, list []map[string]any) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	cfg.QPS, cfg.UserAgent = -1, agent
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		return err
	}
	objects := make([]*unstructured.Unstructured, len(list))
	for i, o := range list {
		objects[i] = &unstructured.Unstructured{Object: o}
	}
	m := ssa.NewResourceManager(c, nil, ssa.Owner{Field: "yardstick", Group: "yardstick.example.com"})
	m.SetConcurrency(4)
	// Namespaces come first in the order that ApplyAll sorts by, but it sends all at
	// once.
	var namespaces, rest []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == "Namespace" {
			namespaces = append(namespaces, o)
		} else {
			rest = append(rest, o)
		}
	}
	for _, part := range [][]*unstructured.Unstructured{namespaces, rest} {
		if _, err := m.ApplyAll(ctx, part, ssa.DefaultApplyOptions()); err != nil {
			return err
		}
	}
	return nil
}
