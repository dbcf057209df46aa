package provision

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"strings"
)

// userDataTypes are the first bytes by which cloud-init recognizes kinds of
// user-data, and the type that a part of that kind has.
var userDataTypes = []struct{ prefix, mime string }{
	{"#!", "text/x-shellscript"},
	{"#include-once", "text/x-include-once-url"},
	{"#include", "text/x-include-url"},
	{"#cloud-boothook", "text/cloud-boothook"},
	{"#cloud-config-archive", "text/cloud-config-archive"},
	{"#cloud-config-jsonp", "text/cloud-config-jsonp"},
	{"#cloud-config", "text/cloud-config"},
	{"#part-handler", "text/part-handler"},
	{"## template: jinja", "text/jinja2"},
	{"\x1f\x8b", "application/gzip"},
}

// userDataMessage tells whether user-data is a MIME message already.
func userDataMessage(user []byte) bool {
	head := strings.ToLower(string(user[:min(len(user), 1024)]))
	return strings.HasPrefix(head, "content-type:") || strings.HasPrefix(head, "mime-version:")
}

// multipartMessage puts user-data of any kind and our cloud-config into one
// MIME message. Ours comes last and adds to what the user's parts say.
func multipartMessage(user, ours []byte) ([]byte, error) {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	header, content := encodedPart(kindOf(user), "user-data", user)
	if userDataMessage(user) {
		// A message within a message: cloud-init walks through all parts.
		var err error
		if header, content, err = messagePart(user); err != nil {
			return nil, err
		}
	}
	if err := writePart(w, header, content); err != nil {
		return nil, err
	}
	header, content = encodedPart("text/cloud-config", "hurd-qemu-action", ours)
	if err := writePart(w, header, content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	head := fmt.Sprintf("Content-Type: multipart/mixed; boundary=%q\nMIME-Version: 1.0\n\n", w.Boundary())
	return append([]byte(head), body.Bytes()...), nil
}

func writePart(w *multipart.Writer, header textproto.MIMEHeader, content []byte) error {
	part, err := w.CreatePart(header)
	if err != nil {
		return err
	}
	_, err = part.Write(content)
	return err
}

func kindOf(user []byte) string {
	for _, t := range userDataTypes {
		if bytes.HasPrefix(user, []byte(t.prefix)) {
			return t.mime
		}
	}
	return "text/plain" // cloud-init looks at it again
}

// encodedPart is a part that survives whatever bytes it holds.
func encodedPart(kind, name string, content []byte) (textproto.MIMEHeader, []byte) {
	const column = 76 // RFC 2045
	text := base64.StdEncoding.EncodeToString(content)
	var body bytes.Buffer
	for len(text) > column {
		body.WriteString(text[:column] + "\r\n")
		text = text[column:]
	}
	body.WriteString(text + "\r\n")
	return textproto.MIMEHeader{
		"Content-Type":              {kind},
		"Content-Transfer-Encoding": {"base64"},
		"Content-Disposition":       {fmt.Sprintf("attachment; filename=%q", name)},
	}, body.Bytes()
}

// messagePart keeps of a message's header what a part may have.
func messagePart(message []byte) (textproto.MIMEHeader, []byte, error) {
	m, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		return nil, nil, fmt.Errorf("reading user-data as a MIME message: %w", err)
	}
	content, err := io.ReadAll(m.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("reading user-data as a MIME message: %w", err)
	}
	header := textproto.MIMEHeader{}
	for name, values := range m.Header {
		if strings.HasPrefix(name, "Content-") {
			header[name] = values
		}
	}
	return header, content, nil
}
