package apply

import (
	"context"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
)

const (
	memberPage     = 500 // objects in one answer
	memberRequests = 8   // at once
	memberOwners   = 20  // named in one selector; for more, all of the label are listed
)

// Member is an object that a Sync has applied, as far as its metadata tells.
type Member struct {
	ID          ID
	Terminating bool

	resource schema.GroupVersionResource
}

// Inventory is what the listing knows of an owner's, for one who may not read that:
// without evidence, so that drift does not show.
func (l Listing) Inventory(o Owner) Inventory {
	inv := Inventory{Entries: map[ID]Entry{}}
	for _, m := range l.Objects[o] {
		phase := Applied
		if m.Terminating {
			phase = Terminating
		}
		inv.Entries[m.ID] = Entry{Version: m.resource.Version, Resource: m.resource.Resource, Phase: phase}
	}
	return inv
}

// Listing is what [Cluster.Members] has found.
type Listing struct {
	Objects  map[Owner][]Member // in the order of their names
	Unlisted []Unlisted
	// Within says that objects of other namespaces than the owners' were not looked for,
	// since they may not be listed.
	Within bool
}

// Unlisted is a kind whose objects could not be listed. Kind is "" for a whole group.
type Unlisted struct {
	Kind       schema.GroupKind
	Namespaced bool
	Err        error
}

// Members lists the metadata of what the owners have applied, of every kind that can be
// listed and patched, without their inventories, which few may read. What may not be
// listed is told in the Listing. Errors are those of discovery as a whole, and of ctx.
func (c *Cluster) Members(ctx context.Context, owners []Owner) (Listing, error) {
	l := &listing{cluster: c, byLabel: map[string]Owner{}, found: map[Owner]map[types.UID]Member{}}
	for _, o := range owners {
		l.byLabel[o.label()] = o
		if !slices.Contains(l.namespaces, o.Namespace) {
			l.namespaces = append(l.namespaces, o.Namespace)
		}
	}
	resources, err := discovery.ServerPreferredResourcesWithContext(ctx, discovery.ToDiscoveryInterfaceWithContext(c.client.Discovery()))
	groups, partly := discovery.GroupDiscoveryFailedErrorGroups(err)
	if err != nil && !partly {
		return Listing{}, fmt.Errorf("ask the API server for its kinds: %w", err)
	}
	for gv, err := range groups {
		l.unlisted = append(l.unlisted, Unlisted{Kind: schema.GroupKind{Group: gv.Group}, Err: err})
	}
	turns := make(chan struct{}, memberRequests)
	var work sync.WaitGroup
	for _, list := range resources {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue // nobody could ask for it
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || !slices.Contains(r.Verbs, "patch") || r.Kind == "Event" {
				continue // nobody applies events, of which there are many
			}
			turns <- struct{}{}
			work.Go(func() {
				defer func() { <-turns }()
				l.kind(ctx, gv.WithResource(r.Name), schema.GroupKind{Group: gv.Group, Kind: r.Kind}, r.Namespaced)
			})
		}
	}
	work.Wait()
	return l.result(), ctx.Err()
}

// listing is one at work.
type listing struct {
	cluster    *Cluster
	byLabel    map[string]Owner
	namespaces []string // of the owners

	mu       sync.Mutex
	found    map[Owner]map[types.UID]Member
	unlisted []Unlisted
	within   bool
}

// kind lists one everywhere or, where that is forbidden, in the owners' namespaces.
func (l *listing) kind(ctx context.Context, gvr schema.GroupVersionResource, gk schema.GroupKind, namespaced bool) {
	err := l.list(ctx, gvr, gk, "")
	if apierrors.IsForbidden(err) && namespaced {
		l.mu.Lock()
		l.within = true
		l.mu.Unlock()
		for _, ns := range l.namespaces {
			if err = l.list(ctx, gvr, gk, ns); err != nil {
				break
			}
		}
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.unlisted = append(l.unlisted, Unlisted{gk, namespaced, err})
	}
}

func (l *listing) list(ctx context.Context, gvr schema.GroupVersionResource, gk schema.GroupKind, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for opts := (metav1.ListOptions{LabelSelector: l.selector(), Limit: memberPage}); ; {
		page, err := l.cluster.in(gvr, namespace).List(ctx, opts)
		if err != nil {
			return err
		}
		l.mu.Lock()
		for i := range page.Items {
			l.take(gk, gvr, &page.Items[i])
		}
		l.mu.Unlock()
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

func (l *listing) selector() string {
	var values []string
	for v := range l.byLabel {
		values = append(values, v)
	}
	r, err := labels.NewRequirement(SyncLabel, selection.In, values)
	if len(values) > memberOwners || err != nil {
		return SyncLabel
	}
	return r.String()
}

// take keeps an object that the owner itself has labelled: controllers copy labels to
// objects of their own. One that two groups serve is of the one it was applied in.
func (l *listing) take(gk schema.GroupKind, gvr schema.GroupVersionResource, m *metav1.PartialObjectMetadata) {
	owner, ok := l.byLabel[m.Labels[SyncLabel]]
	if !ok {
		return
	}
	group := gk.Group
	ours := ownedBy(m, labelPath, func(f metav1.ManagedFieldsEntry) bool {
		if !isOurs(f, owner.fieldManager()) {
			return false
		}
		if gv, err := schema.ParseGroupVersion(f.APIVersion); err == nil {
			group = gv.Group
		}
		return true
	})
	if !ours {
		return
	}
	objects := l.found[owner]
	if objects == nil {
		objects = map[types.UID]Member{}
		l.found[owner] = objects
	}
	if _, twice := objects[m.UID]; !twice || group == gk.Group {
		objects[m.UID] = Member{idOf(gk, m), m.DeletionTimestamp != nil, gvr}
	}
}

func (l *listing) result() Listing {
	out := Listing{Objects: map[Owner][]Member{}, Unlisted: l.unlisted, Within: l.within}
	for owner, objects := range l.found {
		for _, a := range objects {
			out.Objects[owner] = append(out.Objects[owner], a)
		}
		slices.SortFunc(out.Objects[owner], func(a, b Member) int { return compareIDs(a.ID, b.ID) })
	}
	slices.SortFunc(out.Unlisted, func(a, b Unlisted) int {
		return compareIDs(ID{Group: a.Kind.Group, Kind: a.Kind.Kind}, ID{Group: b.Kind.Group, Kind: b.Kind.Kind})
	})
	return out
}
