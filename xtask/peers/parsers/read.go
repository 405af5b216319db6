// Reads bodies, one a line in base64, and prints what it reads in each, one a line (see read.py for the form): in a struct
// with the protocol's fields, whose keys are matched without regard to case, and after a tab in a map.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"slices"
	"strings"
)

type message struct {
	Method json.RawMessage `json:"method"`
	ID     json.RawMessage `json:"id"`
	Params json.RawMessage `json:"params"`
}

type params struct {
	Name          json.RawMessage `json:"name"`
	URI           json.RawMessage `json:"uri"`
	TaskID        json.RawMessage `json:"taskId"`
	Ref           json.RawMessage `json:"ref"`
	Notifications json.RawMessage `json:"notifications"`
	Arguments     json.RawMessage `json:"arguments"`
	Meta          json.RawMessage `json:"_meta"`
}

type reference struct {
	Type json.RawMessage `json:"type"`
	Name json.RawMessage `json:"name"`
	URI  json.RawMessage `json:"uri"`
}

type notifications struct {
	Resources json.RawMessage `json:"resourceSubscriptions"`
	Tasks     json.RawMessage `json:"taskIds"`
}

type meta struct {
	Version json.RawMessage `json:"io.modelcontextprotocol/protocolVersion"`
}

// absent stands for a member that is not there.
type absent struct{}

func main() {
	input, output := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		line, err := input.ReadString('\n')
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		body, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintf(output, "%s\t%s\n", inStructs(body), inMaps(body))
		if err := output.Flush(); err != nil {
			log.Fatal(err)
		}
	}
}

// inStructs reads as a server does that decodes what comes: what follows the first value is left where it is.
func inStructs(body []byte) string {
	var raw json.RawMessage
	if json.NewDecoder(bytes.NewReader(body)).Decode(&raw) != nil {
		return "!"
	}
	if raw[0] != '[' {
		return structure(raw)
	}
	var batch []json.RawMessage
	if json.Unmarshal(raw, &batch) != nil {
		return "!"
	}
	messages := make([]string, len(batch))
	for i, raw := range batch {
		messages[i] = structure(raw)
	}
	return "[ " + strings.Join(messages, " ")
}

func structure(raw json.RawMessage) string {
	if raw[0] != '{' {
		return "?"
	}
	var (
		m message
		p params
		r reference
		n notifications
		v meta
	)
	into(raw, &m)
	into(m.Params, &p)
	into(p.Ref, &r)
	into(p.Notifications, &n)
	into(p.Meta, &v)
	return fields(
		decoded(m.Method), decoded(m.ID), decoded(p.Name), decoded(p.URI), decoded(p.TaskID),
		decoded(r.Type), decoded(r.Name), decoded(r.URI), decoded(n.Resources), decoded(n.Tasks),
		decoded(p.Arguments), decoded(v.Version), decoded(m.Params),
	)
}

// into reads an object; anything else has no members.
func into(raw json.RawMessage, target any) {
	if len(raw) > 0 && raw[0] == '{' {
		if err := json.Unmarshal(raw, target); err != nil {
			log.Fatal(err)
		}
	}
}

func decoded(raw json.RawMessage) any {
	if raw == nil {
		return absent{}
	}
	var value any
	if json.Unmarshal(raw, &value) != nil {
		// A number that overflows.
		return absent{}
	}
	return value
}

func inMaps(body []byte) string {
	var read any
	if json.Unmarshal(body, &read) != nil {
		return "!"
	}
	batch, isBatch := read.([]any)
	if !isBatch {
		return mapped(read)
	}
	messages := make([]string, len(batch))
	for i, read := range batch {
		messages[i] = mapped(read)
	}
	return "[ " + strings.Join(messages, " ")
}

func mapped(read any) string {
	if _, isObject := read.(map[string]any); !isObject {
		return "?"
	}
	p := at(read, "params")
	r, n := at(p, "ref"), at(p, "notifications")
	return fields(
		at(read, "method"), at(read, "id"), at(p, "name"), at(p, "uri"), at(p, "taskId"),
		at(r, "type"), at(r, "name"), at(r, "uri"), at(n, "resourceSubscriptions"), at(n, "taskIds"),
		at(p, "arguments"), at(at(p, "_meta"), "io.modelcontextprotocol/protocolVersion"), p,
	)
}

func at(value any, key string) any {
	if object, isObject := value.(map[string]any); isObject {
		if member, there := object[key]; there {
			return member
		}
	}
	return absent{}
}

func fields(values ...any) string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = canonical(value)
	}
	return strings.Join(texts, ";")
}

func canonical(value any) string {
	switch value := value.(type) {
	case absent:
		return "-"
	case nil:
		return "n"
	case bool:
		if value {
			return "t"
		}
		return "f"
	case string:
		return "\"" + hex.EncodeToString([]byte(value))
	case float64:
		if value == 0 {
			value = 0 // not -0
		}
		return fmt.Sprintf("#%016x", math.Float64bits(value))
	case []any:
		elements := make([]string, len(value))
		for i, element := range value {
			elements[i] = canonical(element)
		}
		return "[" + strings.Join(elements, ",") + "]"
	case map[string]any:
		members := make([]string, 0, len(value))
		for key, member := range value {
			members = append(members, hex.EncodeToString([]byte(key))+":"+canonical(member))
		}
		slices.Sort(members)
		return "{" + strings.Join(members, ",") + "}"
	}
	log.Fatalf("a value of type %T", value)
	return ""
}
