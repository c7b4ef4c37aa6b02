# Adds or removes the records in dns.todo. acme.sh reads this file in place of a command, so that its functions are there
# for the hooks.
# shellcheck shell=sh disable=SC1091
_initpath >/dev/null
. "$CERTFERRY_RUN/dnsapi/dns_certferry.sh" || exit 1
_certferry_failed=0
while read -r _certferry_record _certferry_value; do
  "dns_certferry_$CERTFERRY_DO" "$_certferry_record" "$_certferry_value" </dev/null || _certferry_failed=1
done <"$CERTFERRY_RUN/dns.todo"
exit "$_certferry_failed"
