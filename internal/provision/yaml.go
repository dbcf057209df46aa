package provision

import (
	"errors"
	"fmt"

	"gopkg.in/yaml.v3"
)

// yamlMapping reads a document whose top is a mapping; nothing is an empty one.
func yamlMapping(text []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return &yaml.Node{Kind: yaml.MappingNode}, nil
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, errors.New("its top level is no mapping")
	}
	// The first comment is #cloud-config, which is written anew.
	top.HeadComment, doc.HeadComment = "", ""
	if len(top.Content) > 0 {
		top.Content[0].HeadComment = ""
	}
	return top, nil
}

// yamlGet returns the value of a key, nil when there is none.
func yamlGet(mapping *yaml.Node, key string) *yaml.Node {
	if mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func yamlSet(mapping *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content[i+1] = value
			return
		}
	}
	mapping.Content = append(mapping.Content, yamlString(key), value)
}

func yamlString(s string) *yaml.Node {
	var n yaml.Node
	n.SetString(s)
	return &n
}

// yamlAppend adds strings to a list, which may be missing or a single string.
func yamlAppend(mapping *yaml.Node, key string, values []string) error {
	list := yamlGet(mapping, key)
	switch {
	case list == nil || list.Tag == "!!null":
		list = &yaml.Node{Kind: yaml.SequenceNode}
		yamlSet(mapping, key, list)
	case list.Kind == yaml.ScalarNode:
		list = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{list}}
		yamlSet(mapping, key, list)
	case list.Kind != yaml.SequenceNode:
		return fmt.Errorf("user-data: %s is no list", key)
	}
	for _, v := range values {
		list.Content = append(list.Content, yamlString(v))
	}
	return nil
}
