package apply

import "testing"

func TestANamespaceThatSomebodysFinalizerHoldsInTermination(t *testing.T) {
	t.Parallel()
	const foreign = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: foreign, namespace: NS-in, finalizers: [example.com/hold]}\n"
	p := newPlayer(t, false)
	git := func(outside string, in ...string) string {
		return namespace("NS-in", "") + configMaps("out="+outside) + "---\n" + inside("NS-in", configMaps(in...))
	}
	refusal := "the API server refused it: Forbidden (403): "
	p.play(story{
		{git: git("1", "a=1", "left=1"), done: "create Namespace/NS-in, create ConfigMap/out, create ConfigMap/a, create ConfigMap/left"},
		{meanwhile: all(create(foreign), remove("Namespace/NS-in"), gone("ConfigMap/NS-in/a"), gone("ConfigMap/NS-in/left")), git: git("2", "a=1", "new=1"),
			drift: []string{"ConfigMap/NS-in/a: it is not in the cluster", "ConfigMap/NS-in/left: it is not in the cluster"},
			done:  "change ConfigMap/out",
			failed: []string{"ConfigMap/NS-in/a: " + refusal + `configmaps "a" is forbidden: unable to create new content in namespace NS-in because it is being terminated`,
				"ConfigMap/NS-in/new: " + refusal + `configmaps "new" is forbidden: unable to create new content in namespace NS-in because it is being terminated`},
			inventory: "ConfigMap/a intended, ConfigMap/left applied, ConfigMap/new intended, ConfigMap/out applied, Namespace/NS-in applied"},
		// What left git is forgotten; the namespace of others' objects is not waited for.
		{git: namespace("NS-in", "") + configMaps("out=3"), drift: []string{"ConfigMap/NS-in/left: it is not in the cluster"}, done: "change ConfigMap/out",
			requests: "get configmaps/a, get configmaps/left, get configmaps/new, patch configmaps/out"},
		{meanwhile: all(patch("ConfigMap/NS-in/foreign", `{"metadata":{"finalizers":null}}`), gone("Namespace/NS-in")), git: git("3", "a=1", "new=1"),
			drift: []string{"Namespace/NS-in: it is not in the cluster any more"}, done: "change Namespace/NS-in, create ConfigMap/a, create ConfigMap/new",
			cluster: "ConfigMap/a made, ConfigMap/left absent, ConfigMap/new made, ConfigMap/out same, Namespace/NS-in made"},
		{requests: "none"},
	})
}
