package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
)

// metadata are where clouds tell a machine its secrets; those that are link-local are
// refused as such.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("192.0.0.192"),
}

// Addresses say where tenants' repositories may lie: not on the agent's own machine or
// link, not at a cloud's metadata service, and not at the API server, whose answers
// a tenant would see in error messages, and which trusts the agent's address.
type Addresses struct {
	// AllowCIDR are exceptions, but for the API server; DenyCIDR are refused besides.
	AllowCIDR, DenyCIDR []netip.Prefix
	// APIServer is where the API server is reached.
	APIServer []netip.AddrPort
}

// APIServerAddresses are those that a host of a client configuration, and the cluster's
// own environment, stand for.
func APIServerAddresses(ctx context.Context, host string) []netip.AddrPort {
	var out []netip.AddrPort
	add := func(host, port string) {
		p, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
		if err != nil {
			return
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return // then nobody reaches it by that name
		}
		for _, a := range addrs {
			out = append(out, netip.AddrPortFrom(a.Unmap(), uint16(p))) //nolint:gosec // a port
		}
	}
	if u, err := url.Parse(host); err == nil && u.Hostname() != "" {
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80"}[u.Scheme]
		}
		if port == "" {
			port = "443"
		}
		add(u.Hostname(), port)
	}
	if h := os.Getenv("KUBERNETES_SERVICE_HOST"); h != "" {
		add(h, os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	return out
}

// allow is asked before a connection for a tenant is opened.
func (a Addresses) allow(to netip.AddrPort) error {
	addr := to.Addr()
	in := func(p netip.Prefix) bool { return p.Contains(addr) }
	switch {
	case slices.Contains(a.APIServer, to):
		return errors.New("is the API server")
	case slices.ContainsFunc(a.DenyCIDR, in):
		return errors.New("is refused by --deny-git-cidr")
	case slices.ContainsFunc(a.AllowCIDR, in):
		return nil
	case addr.IsLoopback(), addr.IsUnspecified():
		return errors.New("is the agent's own machine; --allow-git-cidr allows it")
	case addr.IsLinkLocalUnicast(), addr.IsMulticast(), slices.Contains(metadata, addr):
		return errors.New("is link-local, or a cloud's metadata service; --allow-git-cidr allows it")
	}
	return nil
}

// ParseCIDRs reads networks; an address stands for itself.
func ParseCIDRs(texts []string) (out []netip.Prefix, err error) {
	var errs []error
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(s); err == nil {
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%q is not a network such as 10.0.0.0/8", s))
		}
		out = append(out, p.Masked())
	}
	return out, errors.Join(errs...)
}
