// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
)

const (
	secretsPath   = "/api/v1/namespaces/kube-system/secrets"
	bootstrapType = "bootstrap.kubernetes.io/token"
)

// Token is a bootstrap token (kubernetes.io, "Authenticating with Bootstrap Tokens").
type Token struct {
	ID, Secret  string
	Expires     time.Time // zero: never
	Description string
	Groups      string
	Usages      []string // of usage-bootstrap-…
}

// NewToken makes one of the two random parts; ttl 0 is for ever.
func NewToken(ttl time.Duration, usages ...string) Token {
	text := strings.ToLower(rand.Text() + rand.Text())
	t := Token{ID: text[:6], Secret: text[6:22], Usages: usages}
	if ttl > 0 {
		t.Expires = time.Now().Add(ttl)
	}
	return t
}

func (t Token) String() string { return t.ID + "." + t.Secret }

// Keep puts a token into the cluster.
func Keep(ctx context.Context, c *client.Client, t Token) error {
	data := map[string]any{"token-id": t.ID, "token-secret": t.Secret, "description": t.Description, "auth-extra-groups": t.Groups}
	for _, u := range t.Usages {
		data["usage-bootstrap-"+u] = "true"
	}
	if !t.Expires.IsZero() {
		data["expiration"] = t.Expires.UTC().Format(time.RFC3339)
	}
	_, err := c.Create(ctx, secretsPath, map[string]any{"apiVersion": "v1", "kind": "Secret", "type": bootstrapType, "stringData": data,
		"metadata": map[string]any{"name": "bootstrap-token-" + t.ID, "namespace": "kube-system"}})
	return err
}

// Tokens are those that the cluster holds; expired ones are not.
func Tokens(ctx context.Context, c *client.Client) ([]Token, error) {
	list, err := c.List(ctx, secretsPath)
	if err != nil {
		return nil, err
	}
	var out []Token
	for _, s := range list {
		if kind, _, _ := unstructured.NestedString(s.Object, "type"); kind != bootstrapType {
			continue
		}
		if t := readToken(&s); t.valid() {
			out = append(out, t)
		}
	}
	return out, nil
}

func readToken(s *client.Object) Token {
	data, _, _ := unstructured.NestedStringMap(s.Object, "data")
	value := func(key string) string {
		text, _ := base64.StdEncoding.DecodeString(data[key])
		return string(text)
	}
	t := Token{ID: value("token-id"), Secret: value("token-secret"), Description: value("description"), Groups: value("auth-extra-groups")}
	t.Expires, _ = time.Parse(time.RFC3339, value("expiration"))
	for key := range data {
		if usage, ok := strings.CutPrefix(key, "usage-bootstrap-"); ok {
			t.Usages = append(t.Usages, usage)
		}
	}
	return t
}

func (t Token) valid() bool { return t.Expires.IsZero() || time.Now().Before(t.Expires) }

// Forget takes a token out.
func Forget(ctx context.Context, c *client.Client, id string) error {
	return c.Delete(ctx, secretsPath+"/bootstrap-token-"+id)
}

// BootstrapToken tells whether the cluster holds the token, for one of the usages where any is named.
func (p *Plane) BootstrapToken(ctx context.Context, text string, usages ...string) bool {
	id, secret, _ := strings.Cut(text, ".")
	// Not through the API: it waits for a quorum, which a controller that joins may be needed for.
	got, err := p.config.Store.Get(ctx, "/registry/core/secrets/kube-system/bootstrap-token-"+id, clientv3.WithSerializable())
	if err != nil || len(got.Kvs) == 0 {
		return false
	}
	o := &client.Object{}
	if o.UnmarshalJSON(got.Kvs[0].Value) != nil {
		return false
	}
	t := readToken(o)
	fits := len(usages) == 0
	for _, u := range usages {
		for _, has := range t.Usages {
			fits = fits || u == has
		}
	}
	return fits && t.valid() && subtle.ConstantTimeCompare([]byte(t.Secret), []byte(secret)) == 1
}
