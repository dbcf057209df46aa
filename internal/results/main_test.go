package results

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain holds that no transfer leaves anything running, however it ended.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
