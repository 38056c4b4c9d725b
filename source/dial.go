package source

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// dialTimeout bounds one attempt to connect.
const dialTimeout = 30 * time.Second

// DeniedError says that Config.Allow did not let a connection be opened.
type DeniedError struct {
	Address netip.AddrPort
	Why     error
}

func (e *DeniedError) Error() string { return fmt.Sprintf("address %s: %v", e.Address, e.Why) }

// dialer asks Allow for the very address that is about to be connected to: a name may
// resolve to another one each time.
func (c Config) dialer() *net.Dialer {
	d := &net.Dialer{Timeout: dialTimeout}
	if c.Allow == nil {
		return d
	}
	d.Control = func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		at = netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
		if why := c.Allow(at); why != nil {
			return &DeniedError{Address: at, Why: why}
		}
		return nil
	}
	return d
}
