{{- define "gitseal.labels" -}}
app.kubernetes.io/name: gitseal
app.kubernetes.io/part-of: gitseal
{{- end }}

{{- define "gitseal.selector" -}}
app.kubernetes.io/name: gitseal
app.kubernetes.io/component: agent
{{- end }}

{{- define "gitseal.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if or .tag (not .digest) }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{- define "gitseal.subjects" -}}
- kind: ServiceAccount
  name: gitseal-agent
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* What the agent may do where it keeps Syncs. */ -}}
{{- define "gitseal.watchRules" -}}
- apiGroups: [gitseal.io]
  resources: [syncs]
  verbs: [list, watch, patch]
- apiGroups: [gitseal.io]
  resources: [syncs/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, impersonate]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
