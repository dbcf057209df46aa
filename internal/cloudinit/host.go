package cloudinit

import (
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// labels is a name of RFC 1123, with or without a domain.
var labels = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*$`)

// hostname names the guest by its first label, as cloud-init does on Debian.
func (p *parser) hostname(doc, meta mapping) {
	keep := p.flag(doc, "preserve_hostname", false)
	part, name := "hostname", p.text(doc, "hostname")
	if fqdn := p.text(doc, "fqdn"); name == "" {
		part, name = "fqdn", fqdn
	}
	if local := p.text(meta, "local-hostname"); name == "" {
		part, name = "meta-data: local-hostname", local
	}
	if name == "" || keep {
		return
	}
	if !labels.MatchString(name) {
		p.problem(part, "%q is no host name", brief(name))
		return
	}
	name, _, _ = strings.Cut(name, ".")
	p.steps = append(p.steps, line(part, "host name "+name, hostnameScript, nil, name))
}

var zonePattern = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)

func (p *parser) timezone(doc mapping) {
	zone := p.text(doc, "timezone")
	switch {
	case zone == "":
	case !zonePattern.MatchString(zone):
		p.problem("timezone", "%q is no time zone such as Europe/Berlin", brief(zone))
	default:
		p.steps = append(p.steps, line("timezone", "time zone "+zone, timezoneScript, nil, zone))
	}
}

// packagePattern is a Debian package, with what apt-get(8) takes after its name:
// an architecture, a version, a release.
var packagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?([=/][A-Za-z0-9.+:~_-]+)?$`)

func (p *parser) packages(doc mapping) {
	names := p.packageNames(doc)
	update, upgrade := p.flag(doc, "package_update", false), p.flag(doc, "package_upgrade", false)
	// As cloud-init does: the lists of an image are always too old.
	if update || upgrade || len(names) > 0 {
		p.steps = append(p.steps, line("package_update", "package lists", packagesScript, nil, "update"))
	}
	if upgrade {
		p.steps = append(p.steps, line("package_upgrade", "upgrade of all packages", packagesScript, nil, "dist-upgrade"))
	}
	if len(names) > 0 {
		p.steps = append(p.steps, line("packages", strings.Join(names, ", "), packagesScript, nil, append([]string{"install"}, names...)...))
	}
}

// packageNames reads a list of names, of [name, version] and of {apt: [...]}.
func (p *parser) packageNames(m mapping) []string {
	var names []string
	for i, n := range p.list(m, "packages") {
		at := index(m.at("packages"), i)
		name := ""
		switch n = target(n); {
		case n.Kind == yaml.ScalarNode:
			name = n.Value
		case n.Kind == yaml.SequenceNode && len(n.Content) == 2:
			name = target(n.Content[0]).Value + "=" + target(n.Content[1]).Value
		case n.Kind == yaml.MappingNode:
			manager, _ := p.mapping(at, n)
			inner := mapping{path: at, values: map[string]*yaml.Node{}}
			if apt := manager.take("apt"); apt != nil {
				inner.values["packages"] = apt
				names = append(names, p.packageNames(inner)...)
			}
			p.rest(manager)
			continue
		}
		if !packagePattern.MatchString(name) {
			p.problem(at, "%q is no Debian package", brief(name))
			continue
		}
		names = append(names, name)
	}
	return names
}
