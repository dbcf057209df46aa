package cloudinit

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// namePattern is a user's or group's name that useradd(8) takes, a little wider.
var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?$`)

var idPattern = regexp.MustCompile(`^[0-9]{1,9}$`)

func (p *parser) users(doc mapping) {
	for i, n := range p.list(doc, "users") {
		at := index("users", i)
		if n = target(n); n.Kind == yaml.ScalarNode {
			if n.Value == "default" { // of a distribution's configuration of cloud-init
				p.ignore(at + " (default)")
				continue
			}
			n = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "name"}, n}}
		}
		m, ok := p.mapping(at, n)
		if !ok {
			p.problem(at, "is neither a name nor a mapping with one")
			continue
		}
		p.user(m)
	}
}

func (p *parser) user(m mapping) {
	name := p.text(m, "name")
	if !namePattern.MatchString(name) {
		p.problem(m.at("name"), "%q is no user's name", brief(name))
	}
	home, shell, gecos := p.text(m, "homedir"), p.text(m, "shell"), p.text(m, "gecos")
	for _, f := range []struct{ key, value string }{{"homedir", home}, {"shell", shell}} {
		if f.value != "" && (!path.IsAbs(f.value) || strings.ContainsAny(f.value, ":\r\n")) {
			p.problem(m.at(f.key), "%q is no absolute path", brief(f.value))
		}
	}
	if strings.ContainsAny(gecos, ":\r\n") {
		p.problem(m.at("gecos"), "holds a colon or a line end, which separate fields and accounts")
	}
	primary, groups := p.text(m, "primary_group"), p.groups(m)
	for _, g := range append(groups, primary) {
		if g != "" && !namePattern.MatchString(g) {
			p.problem(m.at("groups"), "%q is no group's name", brief(g))
		}
	}
	uid := p.text(m, "uid")
	if uid != "" && !idPattern.MatchString(uid) {
		p.problem(m.at("uid"), "%q is no number", brief(uid))
	}
	flags, secret := p.password(m)
	for _, f := range []struct{ key, flag string }{{"system", "system"}, {"no_create_home", "no-home"}, {"no_user_group", "no-group"}} {
		if p.flag(m, f.key, false) {
			flags = append(flags, f.flag)
		}
	}
	title := "user " + name
	if len(groups) > 0 {
		title += " in " + strings.Join(groups, ", ")
	}
	p.steps = append(p.steps, line(m.path, title, userScript, stdin([]string{secret}),
		name, gecos, home, shell, primary, strings.Join(groups, " "), uid, strings.Join(flags, " ")))
	p.sudo(m, name)
	if keys := p.lines(m, "ssh_authorized_keys"); len(keys) > 0 {
		p.steps = append(p.steps, keyStep(m.at("ssh_authorized_keys"), name, keys))
	}
	p.rest(m)
}

// password takes what is said of a user's password. passwd is for a user that
// is made, hashed_passwd and plain_text_passwd also for one that exists.
func (p *parser) password(m mapping) (flags []string, secret string) {
	for _, kind := range []struct{ key, flag string }{{"passwd", "hash"}, {"hashed_passwd", "any-hash"}, {"plain_text_passwd", "plain"}} {
		value := p.text(m, kind.key)
		switch {
		case value == "":
			continue
		case strings.ContainsAny(value, "\r\n"), kind.flag != "plain" && strings.Contains(value, ":"):
			p.problem(m.at(kind.key), "holds a line end or a colon: it is no password or hash")
		case secret != "":
			p.problem(m.at(kind.key), "is a second password of the same user")
		}
		flags, secret = append(flags, kind.flag), value
	}
	if p.flag(m, "lock_passwd", true) {
		flags = append(flags, "lock")
	}
	return flags, secret
}

// groups takes a list of groups, or a text that lists them.
func (p *parser) groups(m mapping) []string {
	var all []string
	for _, entry := range p.texts(m, "groups") {
		for g := range strings.SplitSeq(entry, ",") {
			if g = strings.TrimSpace(g); g != "" {
				all = append(all, g)
			}
		}
	}
	return all
}

func (p *parser) sudo(m mapping, name string) {
	if n := m.values["sudo"]; n != nil && target(n).Tag == "!!bool" {
		m.take("sudo") // false: no rule
		return
	}
	rules := p.lines(m, "sudo")
	if len(rules) == 0 {
		return
	}
	for i, rule := range rules {
		rules[i] = name + " " + rule
	}
	p.steps = append(p.steps, line(m.at("sudo"), fmt.Sprintf("sudo for %s", name), sudoScript, stdin(rules)))
}

// topKeys are the keys of cloud-init's default user.
func (p *parser) topKeys(doc mapping) {
	if keys := p.lines(doc, "ssh_authorized_keys"); len(keys) > 0 {
		p.steps = append(p.steps, keyStep("ssh_authorized_keys", p.User, keys))
	}
}

func keyStep(part, user string, keys []string) Step {
	count := "1 key"
	if len(keys) > 1 {
		count = fmt.Sprintf("%d keys", len(keys))
	}
	return line(part, count+" for "+user, keysScript, stdin(keys), user)
}
