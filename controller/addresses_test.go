package controller

import (
	"net/netip"
	"strings"
	"testing"
)

func TestWhereTenantsRepositoriesMayLie(t *testing.T) {
	t.Parallel()
	a := Addresses{
		AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, DenyCIDR: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")},
		APIServer: []netip.AddrPort{netip.MustParseAddrPort("10.96.0.1:443"), netip.MustParseAddrPort("127.0.0.2:6443")},
	}
	for address, says := range map[string]string{
		"140.82.121.4:443":      "",
		"10.0.0.7:3000":         "", // a git server in the cluster
		"10.96.0.1:443":         "is the API server",
		"10.96.0.1:8443":        "",
		"127.0.0.1:80":          "own machine",
		"127.0.0.2:80":          "",
		"127.0.0.2:6443":        "is the API server", // whatever is allowed
		"[::1]:80":              "own machine",
		"0.0.0.0:80":            "own machine",
		"169.254.169.254:80":    "metadata service",
		"[fe80::1]:80":          "metadata service",
		"[fd00:ec2::254]:80":    "metadata service",
		"168.63.129.16:80":      "metadata service",
		"224.0.0.1:80":          "metadata service",
		"10.9.3.4:443":          "--deny-git-cidr",
		"[::ffff:127.0.0.1]:80": "own machine", // as the dialer hands it on
	} {
		to := netip.MustParseAddrPort(address)
		err := a.allow(netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
		if (says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", address, err, says)
		}
	}
}
