package httpapi_test

import (
	"net/http"
	"testing"

	"github.com/certferry/certferry/hub/apiv1"
)

func TestEndpointsThatNobodyCanAsk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("op", apiv1.RoleOperator)
	at := apiv1.Prefix + "/endpoints"
	for _, bad := range []apiv1.EndpointRequest{
		{Name: "front", Address: "*.example.com:443"},
		{Name: "front", Address: "www.example.com:443", ServerName: "*.example.com"},
		{Name: "front", Address: "169.254.169.254:443"},
		{Name: "front", Address: "www.example.com"},
	} {
		if got := w.send(http.MethodPost, at, operator, bad); got.status != http.StatusUnprocessableEntity {
			t.Errorf("%+v: %d %s", bad, got.status, got.body)
		}
	}
	if got := w.send(http.MethodPost, at, operator, apiv1.EndpointRequest{Name: "front", Address: "www.example.com:443"}); got.status != http.StatusCreated {
		t.Errorf("%d %s", got.status, got.body)
	}
}
