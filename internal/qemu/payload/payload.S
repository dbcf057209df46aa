# A guest of 512 bytes that proves that a processor runs: it leaves real mode,
# turns paging on with an address that is not where it seems to be, checks
# that memory is reached through it both ways, changes the mapping, checks
# again, and ends QEMU through the isa-debug-exit port.
#
# It is the end of a 64 KiB firmware image: the processor starts at its last
# 16 bytes, and the same bytes are also found below 1 MiB, at LOW + offset.
#
# Written to the port: OK when all is well, else the number of the failed
# step. QEMU's exit status is twice that plus one.

	.set	OK, 0x35
	.set	PORT, 0xf4
	.set	LOW, 0xffe00		# where this section is, below 1 MiB
	.set	PHYS_A, 0x4000		# two pages of memory, that change places
	.set	PHYS_B, 0x5000
	.set	DIRECTORY, 0x1000
	.set	TABLE_LOW, 0x2000	# identity for the first 4 MiB
	.set	TABLE_HIGH, 0x3000	# for the 4 MiB after them
	.set	VIRT_A, 0x400000	# an address that has no memory of its own
	.set	MAGIC_A, 0x48757264
	.set	MAGIC_B, 0x4d616368

	.section .text
	.code16
start:	cli
	lgdtl	%cs:(gdtr - start + 0xfe00)
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $(LOW + protected - start)

	.code32
protected:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	cld
	movb	$1, %bl			# step 1: memory keeps what is written
	movl	$MAGIC_A, PHYS_A
	movl	$MAGIC_B, PHYS_B
	cmpl	$MAGIC_A, PHYS_A
	jne	leave

	movl	$DIRECTORY, %edi	# tables: present, writable
	xorl	%eax, %eax
	movl	$1024, %ecx
	rep stosl
	movl	$(TABLE_LOW + 3), DIRECTORY
	movl	$(TABLE_HIGH + 3), DIRECTORY + 4
	movl	$TABLE_LOW, %edi
	movl	$3, %eax
	movl	$1024, %ecx
1:	stosl
	addl	$0x1000, %eax
	loop	1b
	movl	$(PHYS_B + 3), TABLE_HIGH
	movl	$DIRECTORY, %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	jmp	paged

paged:	incb	%bl			# step 2: the high address is page B
	cmpl	$MAGIC_B, VIRT_A
	jne	leave
	incb	%bl			# step 3: what is written there arrives in B
	movl	$0x2b, VIRT_A
	cmpl	$0x2b, PHYS_B
	jne	leave
	incb	%bl			# step 4: and not in A
	cmpl	$MAGIC_A, PHYS_A
	jne	leave
	incb	%bl			# step 5: a changed mapping is obeyed
	movl	$(PHYS_A + 3), TABLE_HIGH
	invlpg	VIRT_A
	cmpl	$MAGIC_A, VIRT_A
	jne	leave
	movb	$OK, %bl
leave:	movzbl	%bl, %eax
	movl	$PORT, %edx
	outl	%eax, %dx
halt:	hlt
	jmp	halt

	.balign	8
gdt:	.quad	0
	.quad	0x00cf9a000000ffff	# code: flat, 32 bits
	.quad	0x00cf92000000ffff	# data: flat, 32 bits
gdtr:	.word	. - gdt - 1
	.long	LOW + gdt - start

	.org	0x1f0			# the reset vector
	.code16
	jmp	start
	.org	0x200
