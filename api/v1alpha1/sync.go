package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Sync keeps one folder of one git repository applied to the cluster, sealed
// secrets included.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=gitseal
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Commit",type=string,JSONPath=`.status.applied.revision`,priority=1
// +kubebuilder:printcolumn:name="Objects",type=integer,JSONPath=`.status.objects.total`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspend`,priority=1
// +kubebuilder:printcolumn:name="Path",type=string,JSONPath=`.spec.path`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name of a Sync must not be longer than 63 characters"
type Sync struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec SyncSpec `json:"spec"`
	// +optional
	Status SyncStatus `json:"status,omitzero"`
}

// SyncList is a list of Syncs.
//
// +kubebuilder:object:root=true
type SyncList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Sync `json:"items"`
}

// SyncSpec says what to keep applied, and how.
type SyncSpec struct {
	// Source is the repository, and what to follow in it.
	// +required
	Source Source `json:"source"`

	// Path is the folder of the repository to apply: the root if it is empty.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.split('/').exists(p, p == '..')",message="path must stay inside of the repository: it holds '..'"
	Path string `json:"path,omitempty"`

	// Interval is the time between looks at git.
	// +optional
	// +kubebuilder:default="1m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="interval must be one second or more"
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Interval metav1.Duration `json:"interval,omitzero"`

	// RetryInterval is the longest time between tries after a failure. The first
	// try again is made after a second, and each pause is twice the one before.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="retryInterval must be one second or more"
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	RetryInterval *metav1.Duration `json:"retryInterval,omitempty"`

	// Timeout is the longest time that what was applied may take to become ready,
	// with wait, and a wave (gitseal.io/wave) before the next one begins.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="timeout must be one second or more"
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Timeout metav1.Duration `json:"timeout,omitzero"`

	// Wait makes the Sync ready only once what it applied is ready.
	// +optional
	Wait bool `json:"wait,omitempty"`

	// Prune deletes objects that left git.
	// +optional
	// +kubebuilder:default=true
	Prune *bool `json:"prune,omitempty"`

	// PruneLimit blocks a pass that would prune more than this number of objects, or
	// this percentage of them. Without it a pass is blocked that would prune more
	// than 10 objects and more than half. The annotation gitseal.io/prune-confirm
	// with the commit lets it go on.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9]{1,6}%?$`
	PruneLimit string `json:"pruneLimit,omitempty"`

	// DeletionPolicy says what becomes of the objects when the Sync is deleted:
	// Delete prunes them, Orphan leaves them as they are. The default is Delete, or
	// Orphan where prune is false.
	// +optional
	// +kubebuilder:validation:Enum=Delete;Orphan
	DeletionPolicy string `json:"deletionPolicy,omitempty"`

	// Drift says what happens to changes that are made in the cluster: Correct puts
	// them back, Report only says so.
	// +optional
	// +kubebuilder:default=Correct
	// +kubebuilder:validation:Enum=Correct;Report
	Drift string `json:"drift,omitempty"`

	// IgnoreFields are fields that others may take over once they have written them.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	IgnoreFields []IgnoreFields `json:"ignoreFields,omitempty"`

	// Force deletes objects and makes them anew where a field of them can not be
	// changed. Volume claims, namespaces and CRDs are never made anew.
	// +optional
	Force bool `json:"force,omitempty"`

	// Suspend stops everything: looks at git, changes, corrections of drift.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// ServiceAccountName is the service account of the Sync's namespace by which
	// objects are written and read. Every Sync outside of the agent's own namespace
	// must name one, unless the agent has a default for them.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`
	ServiceAccountName string `json:"serviceAccountName,omitempty"`

	// TargetNamespace is for objects that name no namespace: the Sync's own, if it is
	// empty. Outside of the agent's own namespace it can be no other.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	TargetNamespace string `json:"targetNamespace,omitempty"`

	// AllowProtected lets the Sync change objects that the agent protects, such as
	// those of kube-system. Only a Sync of the agent's own namespace may have it.
	// +optional
	AllowProtected bool `json:"allowProtected,omitempty"`

	// DependsOn are Syncs that must be ready before this one applies anything new.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	DependsOn []SyncReference `json:"dependsOn,omitempty"`

	// Decryption says which keys open sealed files, and how strict to be.
	// +optional
	Decryption Decryption `json:"decryption,omitzero"`
}

// Source is a repository, and what to follow in it.
type Source struct {
	// URL of the repository: https, http or ssh, or git@host:path. It holds no
	// password.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^(https?|ssh)://[^/]+/.+$') || self.matches('^[A-Za-z0-9._-]+@[^/:]+:.+$')",message="url must be an https, http or ssh URL, or user@host:path"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[a-z]+://[^/@]*:[^/@]*@')",message="url must not hold a password: put it into the Secret of secretRef"
	URL string `json:"url"`

	// Ref is what to follow: the repository's default branch, if it is empty.
	// +optional
	Ref Ref `json:"ref,omitzero"`

	// SecretRef names a Secret of the Sync's namespace with the credentials, by the
	// keys username and password, bearerToken, or identity and known_hosts, and
	// ca.crt.
	// +optional
	SecretRef *LocalReference `json:"secretRef,omitempty"`

	// Timeout is the longest time that one look at git may take.
	// +optional
	// +kubebuilder:default="1m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="timeout must be one second or more"
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Timeout metav1.Duration `json:"timeout,omitzero"`

	// Verify lets only signed commits in.
	// +optional
	Verify *Verify `json:"verify,omitempty"`
}

// Ref is what to follow in a repository.
//
// +kubebuilder:validation:XValidation:rule="[has(self.branch), has(self.tag), has(self.semver), has(self.commit)].filter(x, x).size() <= 1",message="ref can have only one of branch, tag, semver and commit"
type Ref struct {
	// Branch by its short name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('refs/')",message="branch is the short name, without refs/heads/"
	Branch string `json:"branch,omitempty"`

	// Tag by its short name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('refs/')",message="tag is the short name, without refs/tags/"
	Tag string `json:"tag,omitempty"`

	// SemVer is a range of versions, such as ">=1.2 <2": the highest tag in it is
	// followed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	SemVer string `json:"semver,omitempty"`

	// Commit is a full hash, which is held.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{40}$`
	Commit string `json:"commit,omitempty"`
}

// LocalReference names an object of the same namespace.
type LocalReference struct {
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// SyncReference names another Sync.
type SyncReference struct {
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// Namespace is the Sync's own, if it is empty. Outside of the agent's own
	// namespace it can be no other.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// Verify says whose signature a commit must carry.
type Verify struct {
	// Mode says what must be signed: the commit (HEAD), the tag that is followed
	// (Tag), or both (TagAndHEAD).
	// +optional
	// +kubebuilder:default=HEAD
	// +kubebuilder:validation:Enum=HEAD;Tag;TagAndHEAD
	Mode string `json:"mode,omitempty"`

	// SecretRef names a Secret of the Sync's namespace with public keys of the
	// signers: OpenPGP keys, SSH public keys or lists of allowed signers.
	// +required
	SecretRef LocalReference `json:"secretRef"`

	// Paths name other signers for folders: a commit that changes something there
	// must be signed by one of those.
	// +optional
	// +kubebuilder:validation:MaxItems=50
	// +listType=atomic
	Paths []VerifyPath `json:"paths,omitempty"`
}

// VerifyPath names the signers for a folder.
type VerifyPath struct {
	// Path is the folder, from the root of the repository.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Path string `json:"path"`
	// +required
	SecretRef LocalReference `json:"secretRef"`
}

// IgnoreFields are fields of some objects.
type IgnoreFields struct {
	// Kind of the objects.
	// +required
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9]*$`
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// Group of their API: the core group, if it is empty.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`
	// Name of the object: every object of the kind, if it is empty.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// JSONPointers are the fields, such as /spec/replicas.
	// +required
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:Pattern=`^/`
	// +kubebuilder:validation:items:MaxLength=1024
	// +listType=atomic
	JSONPointers []string `json:"jsonPointers"`
}

// Decryption says which keys open sealed files, and how strict to be. For Syncs
// outside of the agent's own namespace the agent sets a floor, below which nothing
// here can go.
type Decryption struct {
	// KeysFrom names a Secret of the Sync's namespace whose *.agekey and *.asc entries
	// open files too.
	// +optional
	KeysFrom *LocalReference `json:"keysFrom,omitempty"`

	// Binding says whether sealed files must name the object that they are for.
	// +optional
	// +kubebuilder:validation:Enum=Required;IfPresent
	Binding string `json:"binding,omitempty"`

	// MAC says what becomes of SOPS files whose MAC is missing or wrong.
	// +optional
	// +kubebuilder:validation:Enum=Required;Warn
	MAC string `json:"mac,omitempty"`

	// PlaintextSecrets says what becomes of Secrets that lie in git in the clear.
	// +optional
	// +kubebuilder:validation:Enum=Deny;Warn;Allow
	PlaintextSecrets string `json:"plaintextSecrets,omitempty"`

	// OutsideSecrets says what becomes of sealed values outside of a Secret's data:
	// Allow lets them into the very field that was sealed.
	// +optional
	// +kubebuilder:validation:Enum=Deny;Allow
	OutsideSecrets string `json:"outsideSecrets,omitempty"`

	// SealedSecrets says who opens SealedSecret objects: Unseal does it here,
	// PassThrough leaves them to the controller of sealed-secrets.
	// +optional
	// +kubebuilder:validation:Enum=Unseal;PassThrough
	SealedSecrets string `json:"sealedSecrets,omitempty"`

	// AcceptDeprecatedV1Data opens SealedSecrets that hold one blob for the whole
	// Secret (spec.data).
	// +optional
	AcceptDeprecatedV1Data bool `json:"acceptDeprecatedV1Data,omitempty"`
}
