{{/* Budgets as rules: the same as `carbon-exporter budgets` prints, which a test holds. docs/rules.md has the method. */}}

{{/* The budgets, checked for what a schema cannot say, as JSON. */}}
{{- define "carbon-exporter.budgets" -}}
{{- $names := dict -}}
{{- range $at, $budget := .Values.budgets -}}
{{- if hasKey $names $budget.name -}}
{{- fail (printf "budgets[%d].name: %s is the name of another budget" $at $budget.name) -}}
{{- end -}}
{{- if eq (hasKey $budget "grams") (hasKey $budget "kwh") -}}
{{- fail (printf "budgets[%d].grams: either grams or kwh" $at) -}}
{{- end -}}
{{- if $budget.user -}}
{{- if or $budget.namespace $budget.job -}}
{{- fail (printf "budgets[%d].user: a user without namespace and job" $at) -}}
{{- end -}}
{{- if not (has "users" $.Values.prometheusRule.files) -}}
{{- fail (printf "budgets[%d].user: prometheusRule.files needs users" $at) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $names $budget.name true -}}
{{- end -}}
{{- toJson .Values.budgets -}}
{{- end -}}

{{/* The matchers of a budget, in braces. */}}
{{- define "carbon-exporter.budgetMatchers" -}}
{{- $parts := list -}}
{{- range $pair := list (list "cluster" "cluster") (list "job_namespace" "namespace") (list "job_user" "user") -}}
{{- with get $.budget (last $pair) -}}
{{- $parts = append $parts (printf "%s=%s" (first $pair) (toRawJson .)) -}}
{{- end -}}
{{- end -}}
{{- with .budget.job -}}
{{- $pattern := regexQuoteMeta . | replace "\\*" ".*" | replace "\\?" "." -}}
{{- $parts = append $parts (printf "%s=~%s" $.label (toRawJson $pattern)) -}}
{{- end -}}
{ {{- join ", " $parts -}} }
{{- end -}}

{{- define "carbon-exporter.budgetRules" -}}
{{- $chosen := include "carbon-exporter.budgetMatchers" . -}}
{{- $unit := ternary "g" "kWh" (hasKey .budget "grams") -}}
{{- $metric := ternary "co2e_grams" "energy_kwh" (eq $unit "g") -}}
{{- $level := ternary "user" "job" (hasKey .budget "user") -}}
{{- $amount := get .budget (ternary "grams" "kwh" (eq $unit "g")) | toRawJson -}}
{{- $count := trimSuffix "w" .budget.window | trimSuffix "d" | atoi -}}
{{- $days := ternary (mul 7 $count) $count (hasSuffix "w" .budget.window) -}}
{{- $window := printf "[%s23h59m59s999ms]" (ternary "" (printf "%dd" (sub $days 1)) (eq (int $days) 1)) -}}
{{- $spent := printf "budget:carbon_budget_spent:sum%dd" $days -}}
{{- $itself := printf "%s{budget=%s}" $spent (toRawJson .budget.name) -}}
{{- $even := printf "(%s / %d" $amount (mul $days 24) -}}
{{- $labels := dict "budget" .budget.name "unit" $unit "window" (printf "%dd" $days) -}}
{{- with .budget.cluster -}}{{- $_ := set $labels "cluster" . -}}{{- end -}}
{{- $rules := list
  (list $spent (printf "sum(sum_over_time(%s:carbon_job_%s:hourly%s%s)) or vector(0)" $level $metric $chosen $window))
  (list "budget:carbon_budget_left:sum" (printf "%s - %s" $amount $itself))
  (list "budget:carbon_budget_left:ratio" (printf "1 - %s / %s" $itself $amount))
  (list "budget:carbon_budget_predicted:sum" (printf "sum(%s:carbon_run_remaining_%s:sum%s)" $level $metric $chosen))
-}}
{{- range $burn := list (list "1h" 1) (list "6h" 6) (list "1d" 24) -}}
{{- $used := printf "sum(%s:carbon_job_%s:sum%s%s) or vector(0)" $level $metric (first $burn) $chosen -}}
{{- $name := printf "budget:carbon_budget_burn:ratio%s" (first $burn) -}}
{{- $rules = append $rules (list $name (printf "(%s) / %s * %d)" $used $even (last $burn))) -}}
{{- end -}}
{{- range $rules }}
- {{ dict "record" (first .) "expr" (last .) "labels" $labels | toRawJson }}
{{- end }}
{{- end -}}
