package console

import "regexp"

// Patterns is the table of what lines of a console mean. A new finding is one
// more row here and one line of a log in the tests. The texts are for a person
// who reads a failed job: what happened, then what to do.
func Patterns() []Pattern {
	return append(append(append(machPatterns(), hurdPatterns()...), linuxPatterns()...), firmwarePatterns()...)
}

// machPatterns are the messages of the GNU Mach kernel.
func machPatterns() []Pattern {
	return []Pattern{
		{Kind: KernelStart, Severity: Milestone, Contains: "GNU Mach ", Match: start(`GNU Mach \d`), Title: "GNU Mach started"},
		{Kind: Bootstrap, Severity: Milestone, Contains: "start ", Match: regexp.MustCompile(`^start [\w./-]+:`), Prompt: true, Title: "GNU Mach started a boot module"},
		{Kind: MachPanic, Severity: Fatal, Contains: "bootstrap_create", Match: regexp.MustCompile(`\bpanic (?:\{cpu\d+\} )?\S+:\d+: bootstrap_create: No bootstrap code`),
			Title: "GNU Mach found nothing to run", Cause: "The kernel was loaded without the boot modules (ext2fs.static and its kin) that start the Hurd.",
			Advice: "Boot the image's own GRUB entry, or give QEMU the modules with the kernel."},
		{Kind: MachPanic, Severity: Fatal, Contains: "hpet_addr", Match: regexp.MustCompile(`\.\./\S+\.[chS]:\d+: \w+: Assertion .*\bhpet_addr\b`),
			Title: "GNU Mach needs the HPET", Cause: "The kernel found no high precision event timer, and can't work without one.",
			Advice: "Leave the HPET on: remove hpet=off from machine and qemu-args."},
		{Kind: MachPanic, Severity: Fatal, Contains: "Assertion ", Match: regexp.MustCompile(`(?:^|\W)\.\./\S+\.[chS]:\d+: \w+: Assertion .+ failed\.`),
			Title: "An assertion of GNU Mach failed", Cause: "The kernel met a state that its authors thought impossible, and has stopped.",
			Advice: "Try again, then with the machine of the default profile; report the message to bug-hurd@gnu.org if it stays."},
		{Kind: MachPanic, Severity: Fatal, Contains: "panic ", Match: regexp.MustCompile(`(?:^|\W)panic (?:\{cpu\d+\} )?[\w./-]+\.[chSs]:\d+: \w+: `),
			Title: "GNU Mach panicked", Cause: "The kernel met a state that it can't continue from. The message names the place in its source.",
			Advice: "Try again (a panic during boot is often a race), then with the machine of the default profile; report the message to bug-hurd@gnu.org if it stays."},
		{Kind: MachPanic, Severity: Fatal, Contains: "panic: ", Match: start(`panic: `),
			Title: "GNU Mach panicked", Cause: "The kernel met a state that it can't continue from.",
			Advice: "Try again, then with the machine of the default profile; report the message to bug-hurd@gnu.org if it stays."},
		{Kind: "mach-trap", Severity: Fatal, Contains: " trap", Match: start(`Kernel (?:Divide error|Invalid opcode|Double fault|Invalid TSS|Segment not present|Stack bounds|General protection|Page fault) trap[, ]`),
			Title: "GNU Mach trapped in the kernel", Cause: "The processor reported a fault within the kernel itself.",
			Advice: "Try again; if it stays, use the machine and CPU model of the default profile."},
		{Kind: MachDebugger, Severity: Fatal, Match: start(`Debugger invoked: |Stopped +at +0x|db(?:\{\d+\})?>(?: |$)`), Prompt: true,
			Title: "GNU Mach stopped in its kernel debugger", Cause: "The kernel panicked or was interrupted, and waits for commands at the db> prompt.",
			Advice: "The lines above the prompt say why. Commands such as trace and show task can be typed on the console."},
		{Kind: MemoryFull, Severity: Warning, Contains: "unable to recycle", Match: start(`vm_page(?: warning)?: (?:warning: )?unable to recycle any page`),
			Title: "The guest's memory is exhausted", Cause: "GNU Mach could not free a page: all memory is in use and there is no swap (or no pager for it). The guest stops answering soon.",
			Advice: "Give the guest more memory (input memory), or run fewer jobs at once: make -j2 is known to work in 2G where -j4 does not."},
		{Kind: "mach-missing-interrupt", Severity: Warning, Contains: "interrupt", Match: start(`(?:hd\d|ide\d|wd\d): (?:lost|missing) interrupt`),
			Title: "A disk interrupt was lost", Cause: "The disk driver waited for an interrupt that did not come.",
			Advice: "Use one CPU (input cpus: 1) and the disk bus of the default profile."},
	}
}

// hurdPatterns are the messages of the Hurd's servers and of its init.
func hurdPatterns() []Pattern {
	const (
		readOnly       = "It was booted read-only and no start script made it writable, usually because its check failed after an unclean stop."
		readOnlyAdvice = "Start from an image that was shut down cleanly, or repair it: e2fsck -fy on the root partition. Look for ro or --readonly in the boot entry."
		unclean        = "The guest that used this image before was not brought down properly."
		uncleanAdvice  = "Nothing, if the boot goes on. Otherwise repair the image with e2fsck -fy."
	)
	return []Pattern{
		{Kind: "root-server", Severity: Milestone, Contains: "server bootstrap", Match: regexp.MustCompile(`\bHurd server bootstrap: `), Title: "The Hurd's root file system server started"},
		{Kind: Userland, Severity: Milestone, Match: start(`(?:runsystem: |rc: |INIT: version |GNU \d[\d.]* \()`), Title: "The guest's start scripts run"},
		{Kind: TaskDied, Severity: Fatal, Contains: "essential task", Match: regexp.MustCompile(`(?:^|\W)startup: Crashing system; essential task \S+ died`),
			Title: "A server that the Hurd can't live without has died", Cause: "The Hurd brings the system down when one of its essential servers (the root file system, exec, proc, auth) ends.",
			Advice: "Look above for what that server said last. A script that kills processes by pattern may have hit it; for ext2fs, check the image with e2fsck."},
		{Kind: RootIO, Severity: Fatal, Contains: "Input/output error", Match: start(`(?:ext2fs(?:\.static)?: )?part:\d+:device:\w+: Input/output error`),
			Title: "The Hurd can't read its root disk", Cause: "The disk driver failed on the first read of the root partition. This is what the i440fx machine (pc) does with 3.5 GiB of memory or more.",
			Advice: "Use machine: q35 (the default for amd64), or less than 3.5G of memory on pc."},
		{Kind: NoRoot, Severity: Fatal, Contains: "No such device", Match: start(`(?:ext2fs(?:\.static)?: )?(?:part:\d+:)?(?:device:)?[a-z]+\d+(?:s\d+)?: No such device or address`),
			Title: "The root device does not exist", Cause: "The boot entry names a disk or a partition that this machine does not have.",
			Advice: "The name depends on the disk bus: hdN on IDE, sdN on AHCI with the kernel's drivers, wdN with rumpdisk; the number after part: is the partition. Use the profile's disk-bus, or correct root= in the image's boot entry."},
		{Kind: "root-panic", Severity: Fatal, Contains: "ext2fs.static", Match: start(`ext2fs\.static: .*(?:panic: |[Aa]ssertion .* failed)`),
			Title: "The root file system's server failed", Cause: "ext2fs met something on the disk that it does not expect.",
			Advice: "The Hurd needs ext2 with 4096-byte blocks (mke2fs -t ext2 -b 4096 -o hurd); check the image with e2fsck -f."},
		{Kind: "filesystem-panic", Severity: Warning, Contains: "ext2fs: ", Match: start(`ext2fs: .*(?:panic: |[Aa]ssertion .* failed)`),
			Title: "A file system's server failed", Cause: "ext2fs met something on a disk that it does not expect, and has ended.",
			Advice: "The Hurd needs ext2 with 4096-byte blocks (mke2fs -t ext2 -b 4096 -o hurd); check the file system with e2fsck -f."},
		{Kind: Halted, Severity: Ending, Contains: "Shutdown completed", Match: start(`Shutdown completed successfully, now in tight loop`),
			Title: "The guest has halted", Cause: "The Hurd was brought down and GNU Mach has stopped. QEMU stays up: the Hurd can't switch the machine off.",
			Advice: "If the script was not meant to halt the guest, look for halt, poweroff or shutdown in it."},
		{Kind: Halting, Severity: Ending, Contains: "halting Mach", Match: start(`startup: halting Mach`),
			Title: "The guest is halting", Cause: "The Hurd is being brought down.", Advice: "If the script was not meant to halt the guest, look for halt, poweroff or shutdown in it."},
		{Kind: Rebooting, Severity: Ending, Contains: "rebooting Mach", Match: start(`startup: rebooting Mach`),
			Title: "The guest is rebooting", Cause: "The Hurd is being brought down and starts over; everything in memory is lost.",
			Advice: "If the script was not meant to reboot the guest, look above for an essential server that died."},
		{Kind: ReadOnlyRoot, Severity: Warning, Contains: "Read-only file system", Match: regexp.MustCompile(`^\S*(?:rc|init|runsystem|/etc/|hostname|mount|touch|mkdir|cp|rm|ln)[\w./-]*: .*: Read-only file system$`),
			Title: "The root file system is read-only", Cause: readOnly, Advice: readOnlyAdvice},
		{Kind: ReadOnlyRoot, Severity: Warning, Contains: "MOUNTED READ-ONLY", Match: start(`ext2fs\S*: .*MOUNTED READ-ONLY; MUST USE`),
			Title: "The root file system is read-only", Cause: readOnly, Advice: readOnlyAdvice},
		{Kind: DiskFull, Severity: Warning, Contains: "No space left", Match: regexp.MustCompile(`^[^'"]{1,120}: No space left on device$`),
			Title: "A disk of the guest is full", Cause: "A write failed because there was no space left on the device.",
			Advice: "Free space in the guest, or start from a larger disk (input disk-size). The Debian image has about 1.6 GB free."},
		{Kind: Fsck, Severity: Fatal, Contains: "UNEXPECTED INCONSISTENCY", Match: regexp.MustCompile(`^\S+: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY`),
			Title: "The file system check stopped the boot", Cause: "The root file system is damaged, probably by an unclean stop, and its check wants a person to decide.",
			Advice: "Repair the image on the host (e2fsck -fy on the root partition) or start from a fresh one; stop guests that write to an image with halt, never by killing QEMU."},
		{Kind: "unclean", Severity: Warning, Contains: "NOT UNMOUNTED CLEANLY", Match: regexp.MustCompile(`^.{0,120}FILESYSTEM NOT UNMOUNTED CLEANLY`),
			Title: "The file system was not unmounted cleanly", Cause: unclean, Advice: uncleanAdvice},
		{Kind: "unclean", Severity: Warning, Contains: "not cleanly unmounted", Match: regexp.MustCompile(`^\S+ was not cleanly unmounted, check forced`),
			Title: "The file system was not unmounted cleanly", Cause: unclean, Advice: uncleanAdvice},
		{Kind: Maintenance, Severity: Fatal, Contains: "maintenance", Match: regexp.MustCompile(`^(?:(?:Give|Enter) root password for (?:system )?maintenance|Press Enter for maintenance|A maintenance shell will now be started)`), Prompt: true,
			Title: "The boot stopped at a maintenance shell", Cause: "A start script (the file system check, usually) failed and asks for a person.",
			Advice: "The lines above say what failed. After an unclean stop: repair the image with e2fsck -fy, or start from a fresh one."},
	}
}
