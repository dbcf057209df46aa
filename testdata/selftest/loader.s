# The protected-mode part of a bzImage whose kernel is packed with LZ4: Debian's
# own is packed with a stronger method, and unpacking that is half of the boot on
# an emulated processor. GRUB loads it at LOAD, because the header says that it
# is not relocatable, and enters _start in 32-bit mode with esi = boot
# parameters. It does what the kernel's own decompressor would do last: long mode with
# the first 4 GiB mapped, the kernel at its place, a jump to it.
#
# Sources of the formats: Documentation/arch/x86/boot.rst of Linux ("32-bit" and
# "64-bit boot protocol"), doc/lz4_Frame_format.md and lz4_Block_format.md of LZ4.
#
# build gives: PACKED (file with one LZ4 frame without optional fields) through
# the include path, BASE (where the kernel belongs), ENTRY (where it is entered)
# and ROOM (memory behind it, for the packed kernel while it is unpacked).

	.set	LOAD, 0x100000
	.set	CODE64, 0x10
	.set	DATA, 0x18
	.set	FRAME_HEADER, 7

	.text
	.code32
	.globl	_start
_start:
	cli
	cld
	lgdt	LOAD + (gdt_pointer - _start)
	movl	%cr4, %eax
	orl	$0x20, %eax			# PAE
	movl	%eax, %cr4
	movl	$LOAD + (pml4 - _start), %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx		# EFER
	rdmsr
	btsl	$8, %eax			# LME
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000001, %eax		# PG, PE
	movl	%eax, %cr0
	ljmp	$CODE64, $LOAD + (long_mode - _start)

	.code64
long_mode:
	movl	$DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$LOAD + (stack_top - _start), %esp
	movl	%esi, %ebp

	# The packed kernel stands where the unpacked one may come to stand.
	movl	$LOAD + (packed - _start), %esi
	movl	$ROOM, %edi
	movl	$packed_end - packed, %ecx
	call	copy
	movl	$ROOM + FRAME_HEADER, %esi
	movl	$BASE, %edi

block:	# rsi: next block of the frame, rdi: where its contents go
	lodsl
	testl	%eax, %eax
	jz	done
	btrl	$31, %eax
	leaq	(%rsi, %rax), %r8		# end of the block
	jnc	sequence
	movl	%eax, %ecx			# not compressed
	call	copy
	jmp	block

sequence:
	xorl	%eax, %eax
	lodsb
	movl	%eax, %edx			# token
	shrl	$4, %eax
	call	length
	movl	%eax, %ecx
	call	copy				# literals
	cmpq	%r8, %rsi
	jae	block				# the last sequence has nothing else
	xorl	%eax, %eax
	lodsw
	movl	%eax, %r9d			# how far back the match is
	movq	%rdi, %rbx
	subq	%r9, %rbx
	movl	%edx, %eax
	andl	$15, %eax
	call	length
	leal	4(%rax), %ecx
	xchgq	%rbx, %rsi
	cmpl	$8, %r9d
	jb	overlapping
	call	copy
	jmp	copied
overlapping:
	movb	(%rsi), %al
	movb	%al, (%rdi)
	incq	%rsi
	incq	%rdi
	decl	%ecx
	jnz	overlapping
copied:
	movq	%rbx, %rsi
	jmp	sequence

length:	# eax: four bits of a token; adds the bytes at rsi that continue them
	cmpl	$15, %eax
	jne	2f
1:	movzbl	(%rsi), %ecx
	incq	%rsi
	addl	%ecx, %eax
	cmpb	$255, %cl
	je	1b
2:	ret

copy:	# moves rcx bytes from rsi to rdi, eight at a time; up to seven more
	# are written, which what comes next replaces or the kernel clears
	leaq	(%rsi, %rcx), %r10
	leaq	(%rdi, %rcx), %r11
	jmp	2f
1:	movq	(%rsi), %rax
	movq	%rax, (%rdi)
	addq	$8, %rsi
	addq	$8, %rdi
2:	cmpq	%r10, %rsi
	jb	1b
	movq	%r10, %rsi
	movq	%r11, %rdi
	ret

done:
	movl	%ebp, %esi			# the kernel wants the boot parameters there
	movabsq	$ENTRY, %rax
	jmp	*%rax

	.balign	16
gdt:
	.quad	0, 0
	.quad	0x00af9a000000ffff		# CODE64
	.quad	0x00cf92000000ffff		# DATA
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	LOAD + (gdt - _start)

	# The stack has a page of its own: a store to a page with code in it is slow on
	# an emulated processor, because the code may have changed.
	.balign	0x1000
	.skip	0x1000
stack_top:
pml4:
	.quad	LOAD + (pointers - _start) + 3
	.balign	0x1000
pointers:
	.set	directory, LOAD + (directories - _start) + 3
	.rept	4
	.quad	directory
	.set	directory, directory + 0x1000
	.endr
	.balign	0x1000
directories:
	.set	page, 0x83			# present, writable, 2 MiB
	.rept	2048
	.quad	page
	.set	page, page + 0x200000
	.endr

packed:
	.incbin	"kernel.lz4"
packed_end:
	.balign	16
