{{/* There is one agent for each node, so there is one release in a cluster, and names are fixed. */}}
{{- define "ringfence.labels" -}}
app.kubernetes.io/name: ringfence
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "ringfence.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* ringfence.toml. JSON's scalars and lists are TOML's. */}}
{{- define "ringfence.config" -}}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "map" $value) }}
{{ toJson $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
state-dir = "/var/lib/ringfence"
run-dir = "/run/ringfence"
bpffs = "/sys/fs/bpf/ringfence"

[kubernetes]
pod-ranges = {{ toJson .Values.podRanges }}
mode-labels = {{ ternary "set" "raise" .Values.modeAdmission.enabled | toJson }}
{{- with .Values.modeFloor }}
mode-floor = [
{{- range . }}
  { mode = {{ toJson .mode }}
    {{- with .namespaces }}, namespaces = {{ toJson . }}{{ end }}
    {{- with .selector }}, selector = {{ toJson . }}{{ end }} },
{{- end }}
]
{{- end }}
{{- range $key, $value := .Values.config }}
{{- if kindIs "map" $value }}

[{{ $key }}]
{{- range $name, $setting := $value }}
{{ toJson $name }} = {{ toJson $setting }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Nothing is privileged: CAP_BPF and CAP_PERFMON load programs, CAP_NET_ADMIN attaches them. Added capabilities
have no effect for another user than root. */}}
{{- define "ringfence.securityContext" -}}
runAsUser: 0
runAsGroup: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [BPF, NET_ADMIN, PERFMON]
seccompProfile:
  type: RuntimeDefault
{{- with .Values.appArmorProfile }}
appArmorProfile:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ringfence.volumeMounts" -}}
- name: config
  mountPath: /etc/ringfence
  readOnly: true
- name: bpffs
  mountPath: /sys/fs/bpf
  # A file system that is mounted there later is seen without a restart.
  mountPropagation: HostToContainer
- name: state
  mountPath: /var/lib/ringfence
- name: run
  mountPath: /run/ringfence
{{- end }}

{{- define "ringfence.volumes" -}}
- name: bpffs
  hostPath:
    path: /sys/fs/bpf
    type: Directory
- name: state
  hostPath:
    path: {{ .Values.stateDir }}
    type: DirectoryOrCreate
- name: run
  hostPath:
    path: {{ .Values.runDir }}
    type: DirectoryOrCreate
{{- end }}

{{/* Where the agent runs, and what removes its fences. */}}
{{- define "ringfence.placement" -}}
hostNetwork: true
dnsPolicy: Default
priorityClassName: {{ .Values.priorityClassName }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
