package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Reseal asks the agent to seal files anew, which only it can open: ciphertext goes in,
// and ciphertext for the agent's active key, and for recipients that an administrator
// has listed, comes out. It lies in the agent's own namespace. The agent answers once,
// and deletes it some minutes later. `seal rotate` makes these.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=gitseal
// +kubebuilder:printcolumn:name="Completed",type=date,JSONPath=`.status.completedAt`
// +kubebuilder:printcolumn:name="Resealed",type=integer,JSONPath=`.status.resealed`
// +kubebuilder:printcolumn:name="Refused",type=integer,JSONPath=`.status.refused`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Reseal struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ResealSpec `json:"spec"`
	// +optional
	Status ResealStatus `json:"status,omitzero"`
}

// ResealList is a list of Reseals.
//
// +kubebuilder:object:root=true
type ResealList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Reseal `json:"items"`
}

// The limits of one Reseal, so that it and its answer fit into an object of the API
// server (1.5 MiB).
const (
	ResealFiles = 200
	ResealBytes = 600 << 10 // of all contents together
)

// ResealSpec is what to seal anew.
type ResealSpec struct {
	// Files to seal anew; their contents may be 600 KiB together.
	// +required
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=200
	// +listType=atomic
	Files []ResealFile `json:"files"`
	// KeepDataKey seals the data key of SOPS files to the active key, instead of making
	// a new one: people who are not in the list of recipients keep their access, and so
	// does whoever has got hold of an old key.
	// +optional
	KeepDataKey bool `json:"keepDataKey,omitempty"`
}

// ResealFile is a sealed file.
type ResealFile struct {
	// Name of it, for people and the answer. Nothing is opened by it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Name string `json:"name"`
	// Format of a SOPS file, or SealedSecret for YAML or JSON that holds SealedSecrets.
	// +required
	// +kubebuilder:validation:Enum=yaml;json;dotenv;ini;binary;SealedSecret
	Format string `json:"format"`
	// Namespace of SealedSecrets that name none.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// Recipients that a SOPS file is to have besides the active key, each of which an
	// administrator must have listed: those that the file has, if there are none.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=4096
	// +listType=atomic
	Recipients []string `json:"recipients,omitempty"`
	// Content as it is in git.
	// +required
	// +kubebuilder:validation:MaxLength=614400
	Content string `json:"content"`
}

// FormatSealedSecret is the format of SealedSecrets.
const FormatSealedSecret = "SealedSecret"

// ResealStatus is the answer.
type ResealStatus struct {
	// CompletedAt is when the agent answered; from then on nothing changes.
	// +optional
	CompletedAt *metav1.Time `json:"completedAt,omitempty"`
	// Generation of the key that the files are sealed to.
	// +optional
	Generation int32 `json:"generation,omitempty"`
	// Resealed is how many files were sealed anew.
	// +optional
	Resealed int32 `json:"resealed,omitempty"`
	// Refused is how many were not.
	// +optional
	Refused int32 `json:"refused,omitempty"`
	// Files in the order of the spec.
	// +optional
	// +listType=atomic
	Files []ResealedFile `json:"files,omitempty"`
}

// ResealedFile is the answer for one file.
type ResealedFile struct {
	// Name as in the spec.
	Name string `json:"name"`
	// Content, sealed anew; empty where it was refused.
	// +optional
	Content string `json:"content,omitempty"`
	// Reason of a refusal: CanNotBeOpened, Malformed, NotSealed, TooLarge,
	// UnlistedRecipient or Unsupported.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message that goes with the reason. It depends on nothing that is sealed.
	// +optional
	Message string `json:"message,omitempty"`
	// Reformatted says that the layout could not be kept; the values are the same.
	// +optional
	Reformatted bool `json:"reformatted,omitempty"`
}

// Reasons of refusals.
const (
	ResealCanNotBeOpened    = "CanNotBeOpened"
	ResealMalformed         = "Malformed"
	ResealNotSealed         = "NotSealed"
	ResealTooLarge          = "TooLarge"
	ResealUnlistedRecipient = "UnlistedRecipient"
	ResealUnsupported       = "Unsupported"
)
