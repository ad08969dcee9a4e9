{{- define "common.images.image" -}}
{{- $registryName := .imageRoot.registry -}}
{{- if .global.imageRegistry }}{{- $registryName = .global.imageRegistry -}}{{- end -}}
{{- $separator := ":" -}}{{- $termination := .imageRoot.tag | toString -}}
{{- if .imageRoot.digest }}{{- $separator = "@" -}}{{- $termination = .imageRoot.digest | toString -}}{{- end -}}
{{- printf "%s/%s%s%s" $registryName .imageRoot.repository $separator $termination -}}
{{- end -}}
