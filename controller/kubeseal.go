package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/time/rate"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/gitseal/gitseal/crypto"
)

// Endpoints that have to be enabled: they work with private keys for whoever reaches
// them, which is everybody with a network path or the right to proxy to a Service.
const (
	VerifyEndpoint = "verify"
	RotateEndpoint = "rotate"
)

const (
	kubesealBody  = 1 << 20 // bytes of a request, more than the API server takes for an object
	kubesealRate  = 5       // requests in a second, of all callers, that work with private keys
	kubesealBurst = 10
)

// kubesealServer serves what kubeseal asks the controller of sealed-secrets for:
// --fetch-cert and, where they are enabled, --validate and --re-encrypt. It implements
// manager.Runnable and serves on each replica. Answers depend on whether values open,
// and on nothing else that is sealed: no template is rendered (upstream's #2019, #2049),
// and the scope is that of the metadata (CVE-2026-22728).
type kubesealServer struct {
	Kubeseal
	keys    *sharedKeys
	log     *slog.Logger
	limiter *rate.Limiter
}

func (c *Controller) addKubeseal(mgr manager.Manager) error {
	if c.Kubeseal.Address == "" {
		return nil
	}
	return mgr.Add(&kubesealServer{Kubeseal: c.Kubeseal, keys: c.keys, log: c.log, limiter: rate.NewLimiter(kubesealRate, kubesealBurst)})
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*kubesealServer) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (s *kubesealServer) Start(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("serve kubeseal: %w", err)
	}
	server := &http.Server{Handler: s.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(end) // the process ends right after
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *kubesealServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /v1/cert.pem", s.certificate)
	if slices.Contains(s.Endpoints, VerifyEndpoint) {
		mux.HandleFunc("POST /v1/verify", s.limited(s.verify))
	}
	if slices.Contains(s.Endpoints, RotateEndpoint) {
		mux.HandleFunc("POST /v1/rotate", s.limited(s.rotate))
	}
	return mux
}

func (s *kubesealServer) certificate(w http.ResponseWriter, r *http.Request) {
	ring, err := s.keys.load(r.Context())
	if err == nil {
		if active, errActive := ring.Active(); errActive != nil {
			err = errActive
		} else {
			w.Header().Set("Content-Type", "application/x-pem-file")
			_, _ = w.Write(active.Certificate.Certificate().PEM()) // whoever has gone away asks again
			return
		}
	}
	s.log.Warn("no certificate for kubeseal", "error", err.Error())
	http.Error(w, "the agent has no key yet", http.StatusServiceUnavailable)
}

// limited reads the body of a request that works with private keys.
func (s *kubesealServer) limited(f func(w http.ResponseWriter, body []byte, open openWith)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.limiter.Allow() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, kubesealBody))
		if err != nil {
			http.Error(w, "the request is larger than 1 MiB, or was cut off", http.StatusRequestEntityTooLarge)
			return
		}
		ring, err := s.keys.load(r.Context())
		if err != nil {
			s.log.Warn("kubeseal is not answered", "error", err.Error())
			http.Error(w, "the agent has no key yet", http.StatusServiceUnavailable)
			return
		}
		active, err := ring.Active()
		if err != nil {
			http.Error(w, "the agent has no key yet", http.StatusServiceUnavailable)
			return
		}
		f(w, body, openWith{keys: ring.CertificateKeys(), to: active.Certificate.Certificate()})
	}
}

type openWith struct {
	keys []crypto.CertificateKey
	to   crypto.Certificate
}

func (o openWith) request(body []byte) crypto.SealedSecretsRequest {
	return crypto.SealedSecretsRequest{File: body, Keys: o.keys, To: o.to, Now: time.Now()}
}

// verify says whether all values open, which is all that the caller learns.
func (s *kubesealServer) verify(w http.ResponseWriter, body []byte, with openWith) {
	listed, err := crypto.ListSealedSecrets(with.request(body))
	if err != nil || len(listed) != 1 {
		http.Error(w, "not one SealedSecret", http.StatusBadRequest)
		return
	}
	if slices.Contains(listed[0].OpenedBy, "") {
		http.Error(w, saysCanNotBeOpened, http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// rotate answers with the SealedSecret, sealed to the active key; all of it but the
// values stays.
func (s *kubesealServer) rotate(w http.ResponseWriter, body []byte, with openWith) {
	if listed, err := crypto.ListSealedSecrets(crypto.SealedSecretsRequest{File: body}); err != nil || len(listed) != 1 {
		http.Error(w, "not one SealedSecret", http.StatusBadRequest)
		return
	}
	out, _, err := crypto.ResealSealedSecrets(with.request(body))
	if err != nil {
		http.Error(w, saysCanNotBeOpened, http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(out) // whoever has gone away asks again
}
