package harness

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// SealedSecretsCRD is the name of the CustomResourceDefinition.
const SealedSecretsCRD = "sealedsecrets.bitnami.com"

// SealedSecretsResource returns where the API server has SealedSecrets.
func SealedSecretsResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "bitnami.com", Version: "v1alpha1", Resource: "sealedsecrets"}
}

// CRDResource returns where the API server has CustomResourceDefinitions.
func CRDResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// sealedSecretsSchema says what v0.36.6 of sealed-secrets says, without its
// descriptions.
const sealedSecretsSchema = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sealedsecrets.bitnami.com}
spec:
  group: bitnami.com
  scope: Namespaced
  names: {kind: SealedSecret, listKind: SealedSecretList, plural: sealedsecrets, singular: sealedsecret}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: Status, type: string, jsonPath: ".status.conditions[0].message"}
    - {name: Synced, type: string, jsonPath: ".status.conditions[0].status"}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            type: object
            required: [encryptedData]
            properties:
              data: {type: string, format: byte}
              encryptedData:
                type: object
                additionalProperties: {type: string}
                x-kubernetes-preserve-unknown-fields: true
              template:
                type: object
                properties:
                  data: {type: object, nullable: true, additionalProperties: {type: string}}
                  immutable: {type: boolean}
                  metadata:
                    type: object
                    nullable: true
                    x-kubernetes-preserve-unknown-fields: true
                    properties:
                      annotations: {type: object, additionalProperties: {type: string}}
                      finalizers: {type: array, items: {type: string}}
                      labels: {type: object, additionalProperties: {type: string}}
                      name: {type: string}
                      namespace: {type: string}
                  type: {type: string}
          status:
            type: object
            properties:
              observedGeneration: {type: integer, format: int64}
              conditions:
                type: array
                items:
                  type: object
                  required: [status, type]
                  properties:
                    lastTransitionTime: {type: string, format: date-time}
                    lastUpdateTime: {type: string, format: date-time}
                    message: {type: string}
                    reason: {type: string}
                    status: {type: string}
                    type: {type: string}
`

// installSealedSecretsCRD applies the CRD and waits until SealedSecrets can be
// listed.
func installSealedSecretsCRD(ctx context.Context, config *rest.Config) error {
	return InstallCRD(ctx, config, []byte(sealedSecretsSchema), SealedSecretsResource())
}

// InstallCRD applies a CRD and waits until the resource that it defines can be listed.
func InstallCRD(ctx context.Context, config *rest.Config, manifest []byte, defines schema.GroupVersionResource) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(manifest, &crd.Object); err != nil {
		return err
	}
	if _, err := client.Resource(CRDResource()).Apply(ctx, crd.GetName(), crd, metav1.ApplyOptions{FieldManager: userAgent, Force: true}); err != nil {
		return err
	}
	for {
		_, err := client.Resource(defines).List(ctx, metav1.ListOptions{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is not served: %w", err)
		case <-time.After(25 * time.Millisecond):
		}
	}
}
