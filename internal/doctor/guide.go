package doctor

import "slices"

// Entry of the troubleshooting section of the guide that this project began
// from, and what is checked for it.
type entry struct {
	Title string
	Steps []step
}

// step is what the guide tells its reader to do by hand.
type step struct {
	Text   string
	Checks []string // that do it
}

// guide is that section. The steps are in its words, so that its readers find
// their way.
var guide = []entry{
	{"QEMU Won't Start", []step{
		{"Check QEMU syntax", []string{"qemu", "start", "sandbox", "limits"}},
		{"Verify image exists", []string{"image", "images", "store-space"}},
		{"Check image integrity", []string{"image", "images", "tools"}},
		{"Run with verbose output", []string{"start", "temp-space"}},
	}},
	{"SSH Won't Connect", []step{
		{"Check if QEMU is running", []string{"guest-process"}},
		{"Verify port forwarding", []string{"guest-ssh", "loopback"}},
		{"Check serial log for SSH service", []string{"guest-console"}},
		{"Test from within VM (via console)", []string{"guest-console", "guest-ssh"}},
	}},
	{"QMP Socket Errors", []step{
		{"Verify socket exists", []string{"guest-monitor", "sockets", "leftovers"}},
		{"Check QEMU is running", []string{"guest-process"}},
		{"Test socket manually", []string{"guest-monitor"}},
		{"Recreate socket directory", []string{"leftovers", "sockets"}},
	}},
	{"Boot Timeout", []step{
		{"Check serial log", []string{"guest-console"}},
		{"Look for errors", []string{"guest-console"}},
		{"Increase timeout", []string{"kvm", "cpus", "load"}},
		{"Check available memory", []string{"memory"}},
		{"Reduce VM memory if host constrained", []string{"memory"}},
	}},
	{"Performance Issues", []step{
		{"Enable KVM if available", []string{"kvm"}},
		{"Reduce memory/CPU if constrained", []string{"memory", "cpus", "load"}},
		{"Use writeback cache", []string{"temp-space", "store-space", "disk-modes"}},
		{"Disable unnecessary features", []string{"hugepages", "unpackers"}},
	}},
}

// entriesOf are the titles of the entries that a check helps with.
func entriesOf(check string) []string {
	var titles []string
	for _, e := range guide {
		if slices.ContainsFunc(e.Steps, func(s step) bool { return slices.Contains(s.Checks, check) }) {
			titles = append(titles, e.Title)
		}
	}
	return titles
}
