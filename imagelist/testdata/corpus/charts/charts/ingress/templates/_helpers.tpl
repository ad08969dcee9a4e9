{{- define "ingress.image" -}}
{{- printf "%s/%s:%s" .registry .image.image (.image.tag | toString) -}}
{{- if .image.digest -}}{{ print "@" .image.digest }}{{- end -}}
{{- end -}}
