# Reads the part of YAML that cloud-configs are written in: mappings, lists,
# plain, quoted and | scalars. Leaves what it understood in files of dir:
# keys.USER, ed25519_private, ed25519_public, hostname, runcmd; and in the
# file ignored, one line for each thing that it did not.

function unquoted(s, inner) {
	if (s ~ /^".*"$/) {
		inner = substr(s, 2, length(s) - 2)
		gsub(/\\"/, "\"", inner)
		gsub(/\\\\/, "\\", inner)
		return inner
	}
	if (s ~ /^'.*'$/) {
		inner = substr(s, 2, length(s) - 2)
		gsub(/''/, "'", inner)
		return inner
	}
	sub(/[ \t]+#.*$/, "", s)
	return s
}

function path(i, p) {
	for (i = 1; i <= depth; i++) p = p (i > 1 ? "/" : "") name[i]
	return p
}

# A list item counts within its list: the path of the item without its number.
function push(at, what, list) {
	if (what == "-") {
		list = path()
		what = "-" ++items[list]
	}
	indents[++depth] = at
	name[depth] = what
	items[path()] = 0
}

function ignore(what) {
	if (!(what in ignored)) print what >(dir "/ignored")
	ignored[what] = 1
}

function put(file, text) { print text >(dir "/" file) }

# took is called with every scalar of the document.
function took(where, text, parts, n) {
	n = split(where, parts, "/")
	if (text ~ /^[[{&*!]/ && last_plain) ignore(parts[1] ": only lists and mappings of one line per entry are understood")
	else if (where ~ /^ssh_authorized_keys\/-[0-9]+$/) put("keys.root", text)
	else if (where ~ /^users\/-[0-9]+\/name$/) user[parts[2]] = text
	else if (where ~ /^users\/-[0-9]+\/ssh[-_]authorized[-_]keys\/-[0-9]+$/) user_keys[parts[2]] = user_keys[parts[2]] text "\n"
	else if (where ~ /^ssh_keys\/ed25519_(private|public)$/) put(parts[2], text)
	else if (where == "hostname") put("hostname", text)
	else if (where ~ /^runcmd\/-[0-9]+$/ && text !~ /\n/) put("runcmd", text)
	else if (parts[1] == "runcmd") ignore("runcmd: an entry that is not one line of text")
	else if (parts[1] == "users") ignore("users: " (n > 2 ? parts[3] : text))
	else if (parts[1] == "ssh_keys") ignore("ssh_keys: " parts[2])
	else ignore(parts[1])
}

# flush passes a scalar on once it is known that no line continues it.
function flush() {
	if (pending_at == "") return
	last_plain = pending !~ /^["']/
	if (block) sub(/\n+$/, "", pending)
	else pending = unquoted(pending)
	if (block) last_plain = 0
	took(pending_at, pending)
	pending_at = ""
	block = 0
}

{
	match($0, /^ */)
	indent = RLENGTH
	text = substr($0, indent + 1)
}

block && (text == "" || indent > block_indent) {
	if (block_strip == "" && text != "") block_strip = indent
	pending = pending substr($0, block_strip + 1) "\n"
	next
}

text == "" || text ~ /^#/ || text ~ /^(---|\.\.\.)/ { next }

# A line further in than a plain scalar goes on with it.
pending_at != "" && !block && indent > pending_indent && text !~ /^- / {
	pending = pending " " text
	next
}

{
	flush()
	while (text ~ /^-( |$)/) {
		while (depth && (indents[depth] > indent || (indents[depth] == indent && name[depth] ~ /^-/))) depth--
		push(indent, "-")
		own = indent
		sub(/^-/, "", text)
		indent++
		match(text, /^ */)
		indent += RLENGTH
		text = substr(text, RLENGTH + 1)
	}
	if (match(text, /^[A-Za-z0-9_.-]+:( |$)/)) {
		key = text
		sub(/:( .*)?$/, "", key)
		sub(/^[A-Za-z0-9_.-]+: */, "", text)
		while (depth && indents[depth] >= indent) depth--
		push(indent, key)
		own = indent
	}
	if (text == "" || text ~ /^#/) next
	pending_at = path()
	pending = text
	pending_indent = own
	if (text ~ /^[|>][-+0-9]*$/) {
		block = 1
		block_indent = own
		block_strip = ""
		pending = ""
	}
}

END {
	flush()
	for (i in user_keys) printf "%s", user_keys[i] >(dir "/keys." (i in user ? user[i] : "nobody"))
}
