// Package e2e holds the tests that run the whole program on real guests: the
// selftest guest and the real GNU Mach, in QEMU under TCG. The tests with the
// build tags faults and soak take longer and run apart.
package e2e
