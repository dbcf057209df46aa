package console

import "regexp"

// linuxPatterns are the messages of Linux and of the programs that boot it.
func linuxPatterns() []Pattern {
	return []Pattern{
		{Kind: KernelStart, Severity: Milestone, Contains: "Linux version", Match: start(`Linux version \d`), Title: "Linux started"},
		{Kind: Userland, Severity: Milestone, Match: start(`(?:Run /\S+ as init process|systemd\[1\]: |Freeing unused kernel)`), Title: "Linux started its first program"},
		{Kind: NoRoot, Severity: Fatal, Contains: "VFS: ", Match: start(`Kernel panic - not syncing: VFS: Unable to mount root fs|VFS: (?:Cannot open root device|Unable to mount root fs)`),
			Title: "Linux can't mount its root file system", Cause: "The device of root= does not exist in this machine, or the kernel lacks the driver for it or for its file system.",
			Advice: "Compare root= in the boot entry with the disk bus (sdX on AHCI and IDE, vdX on virtio); without an initrd the driver must be built in."},
		{Kind: LinuxPanic, Severity: Fatal, Contains: "Kernel panic", Match: start(`Kernel panic - not syncing: `),
			Title: "Linux panicked", Cause: "The kernel met a state that it can't continue from.",
			Advice: "Try again; if it stays, the message and the call trace above it are for the kernel's developers."},
		{Kind: OutOfMemory, Severity: Warning, Contains: "Out of memory", Match: start(`Out of memory: (?:Killed process|Kill process) \d+`),
			Title: "Linux killed a process for want of memory", Cause: "All memory and swap were in use.",
			Advice: "Give the guest more memory (input memory), or run fewer jobs at once."},
		{Kind: "root-remounted", Severity: Warning, Contains: "Remounting filesystem", Match: start(`EXT[234]-fs \([\w-]+\): Remounting filesystem read-only`),
			Title: "A file system became read-only", Cause: "Linux found an error on the disk and stopped writing to it.",
			Advice: "Repair the image with e2fsck -fy, or start from a fresh one."},
		{Kind: Maintenance, Severity: Fatal, Match: regexp.MustCompile(`^(?:\(initramfs\)(?: |$)|ALERT!  .* does not exist\.  Dropping to a shell)`), Prompt: true,
			Title: "The boot stopped in the initramfs", Cause: "The initial RAM disk could not find or mount the root file system, and started a shell.",
			Advice: "Compare root= in the boot entry with the machine's disks and the image's partitions."},
		{Kind: Halted, Severity: Ending, Contains: "reboot: ", Match: start(`reboot: System halted`), Title: "The guest has halted",
			Cause: "Linux has stopped without switching the machine off.", Advice: "If the script was not meant to halt the guest, look for halt or shutdown in it."},
		{Kind: Halting, Severity: Ending, Contains: "reboot: ", Match: start(`reboot: Power down`), Title: "The guest is switching off",
			Cause: "Linux was brought down.", Advice: "If the script was not meant to stop the guest, look for poweroff or shutdown in it."},
		{Kind: Rebooting, Severity: Ending, Contains: "reboot: ", Match: start(`reboot: Restarting system`), Title: "The guest is rebooting",
			Cause: "Linux is starting over; everything in memory is lost.", Advice: "If the script was not meant to reboot the guest, look for reboot in it."},
		// A prompt counts for every system: "hurd login: ", "(none) login: ", "login> ".
		{Kind: LoginPrompt, Severity: Milestone, Contains: "login", Match: regexp.MustCompile(`^(?:[a-z0-9][a-z0-9.-]* |\(none\) )?login[:>](?: |$)`), Prompt: true, Title: "The guest asks for a login"},
	}
}

// firmwarePatterns are the messages of what runs before the kernel.
func firmwarePatterns() []Pattern {
	const file = "The boot loader's configuration names a disk, a partition or a file that is not there."
	return []Pattern{
		{Kind: Firmware, Severity: Milestone, Contains: "SeaBIOS", Match: start(`SeaBIOS \(version `), Title: "The firmware started"},
		{Kind: Loader, Severity: Milestone, Match: regexp.MustCompile(`^\s*(?:GNU GRUB  version \d|GRUB loading\.?|Welcome to GRUB!|Booting .GNU)`), Title: "The boot loader started"},
		{Kind: NoBoot, Severity: Fatal, Contains: "No bootable device", Match: start(`No bootable device`),
			Title: "There is nothing to boot", Cause: "The firmware found no boot loader on any disk.",
			Advice: "Check that the image is a whole disk (with a partition table and a boot loader), not a single file system, and that it is not empty."},
		{Kind: LoaderPrompt, Severity: Fatal, Contains: "grub", Match: regexp.MustCompile(`^grub(?: rescue)?>(?: |$)`), Prompt: true,
			Title: "GRUB stopped at its prompt", Cause: file, Advice: "Reinstall the boot loader in the image, or correct its /boot/grub/grub.cfg."},
		// GRUB goes on after most errors (a font that is missing, say); without a
		// kernel it stops, and says one of these.
		// A warning: GRUB goes on after a missing translation or font as well.
		{Kind: LoaderError, Severity: Warning, Contains: "error: ", Match: regexp.MustCompile(`^error: (?:\S+:\d+:)? ?(?:no such (?:partition|device)|(?:file|disk) .{1,200} not found|unknown filesystem|attempt to read or write outside|you need to load the kernel first|invalid (?:magic number|arch)|unsupported (?:flag|tag)|no multiboot header found|out of memory)`),
			Title: "GRUB could not read something", Cause: file, Advice: "Correct /boot/grub/grub.cfg in the image: the message names what is missing."},
	}
}
