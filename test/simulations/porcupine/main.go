// Porcupine (Athalye) as a second opinion: reads histories as simulations/histories.ts writes them, and says of each key whether its
// operations could have happened one after the other. The lines are those of porcupine's own key-value logs, and compare-and-set.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

// For one key; then it is "Unknown".
const patience = 30 * time.Second

type input struct {
	f, key, value, expected string
}

// Nobody knows how an operation ended that was never answered.
type output struct {
	value     string
	isDone    bool
	isUnknown bool
}

var (
	line = regexp.MustCompile(`^\{:process (\d+), :type :(invoke|ok|fail), :f :(get|put|cas), :key ("[^"\\]*(?:\\.[^"\\]*)*"), :value (.*)\}$`)
	pair = regexp.MustCompile(`^\[("[^"\\]*(?:\\.[^"\\]*)*") ("[^"\\]*(?:\\.[^"\\]*)*")\]$`)
)

// A register; the empty text while nothing is there.
var register = porcupine.Model{
	Init: func() interface{} { return "" },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		now, asked, answered := state.(string), in.(input), out.(output)
		switch asked.f {
		case "get":
			return answered.isUnknown || answered.value == now, now
		case "put":
			return true, asked.value
		default:
			isThere := asked.expected == now
			if !answered.isUnknown && answered.isDone != isThere {
				return false, now
			}
			if isThere {
				return true, asked.value
			}
			return true, now
		}
	},
}

func unquoted(text string) (string, error) {
	var value string
	err := json.Unmarshal([]byte(text), &value)
	return value, err
}

// What was asked and, of a get, what was answered.
func valueOf(f, kind, text string) (value, expected string, err error) {
	switch {
	case f == "cas":
		both := pair.FindStringSubmatch(text)
		if both == nil {
			return "", "", fmt.Errorf("no pair: %s", text)
		}
		if expected, err = unquoted(both[1]); err == nil {
			value, err = unquoted(both[2])
		}
	case f == "get" && kind == "invoke":
		if text != "nil" {
			err = fmt.Errorf("a get is asked with %s", text)
		}
	default:
		value, err = unquoted(text)
	}
	return value, expected, err
}

// Events by key, in the order of the file; what was never answered ends after everything else.
func read(path string) (map[string][]porcupine.Event, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	type open struct {
		id  int
		key string
		f   string
	}
	opened := map[int]open{}
	events := map[string][]porcupine.Event{}
	lines := bufio.NewScanner(file)
	number := 0
	for lines.Scan() {
		number++
		parts := line.FindStringSubmatch(lines.Text())
		if parts == nil {
			return nil, fmt.Errorf("%s:%d: not a line of a history: %s", path, number, lines.Text())
		}
		process, _ := strconv.Atoi(parts[1])
		kind, f := parts[2], parts[3]
		key, err := unquoted(parts[4])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		value, expected, err := valueOf(f, kind, parts[5])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		before, isBusy := opened[process]
		if kind == "invoke" {
			if isBusy {
				return nil, fmt.Errorf("%s:%d: process %d has an operation under way", path, number, process)
			}
			opened[process] = open{id: number, key: key, f: f}
			events[key] = append(events[key], porcupine.Event{
				ClientId: process, Kind: porcupine.CallEvent, Id: number,
				Value: input{f: f, key: key, value: value, expected: expected},
			})
			continue
		}
		if !isBusy || before.key != key || before.f != f || (kind == "fail" && f != "cas") {
			return nil, fmt.Errorf("%s:%d: an answer that nobody asked for", path, number)
		}
		delete(opened, process)
		events[key] = append(events[key], porcupine.Event{
			ClientId: process, Kind: porcupine.ReturnEvent, Id: before.id, Value: output{value: value, isDone: kind == "ok"},
		})
	}
	for process, one := range opened {
		events[one.key] = append(events[one.key], porcupine.Event{
			ClientId: process, Kind: porcupine.ReturnEvent, Id: one.id, Value: output{isUnknown: true},
		})
	}
	return events, lines.Err()
}

// Without what was never answered and whose value nobody saw: it most likely never happened, and each of those doubles what there
// is to try. When these have an order then all have, for what was not answered may come last.
func likely(events []porcupine.Event) []porcupine.Event {
	seen := map[string]bool{}
	asked := map[int]input{}
	left := map[int]bool{}
	for _, event := range events {
		if event.Kind == porcupine.CallEvent {
			asked[event.Id] = event.Value.(input)
			continue
		}
		answer := event.Value.(output)
		if !answer.isUnknown {
			seen[answer.value] = true
			seen[asked[event.Id].expected] = true
		}
	}
	for _, event := range events {
		if event.Kind == porcupine.ReturnEvent && event.Value.(output).isUnknown {
			left[event.Id] = !seen[asked[event.Id].value]
		}
	}
	some := []porcupine.Event{}
	for _, event := range events {
		if !left[event.Id] {
			some = append(some, event)
		}
	}
	return some
}

func check(events []porcupine.Event) porcupine.CheckResult {
	if porcupine.CheckEventsTimeout(register, likely(events), patience) == porcupine.Ok {
		return porcupine.Ok
	}
	return porcupine.CheckEventsTimeout(register, events, patience)
}

func main() {
	out := json.NewEncoder(os.Stdout)
	for _, path := range os.Args[1:] {
		events, err := read(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		keys := map[string]string{}
		operations := 0
		for key, some := range events {
			keys[key] = string(check(some))
			operations += len(some) / 2
		}
		if err := out.Encode(map[string]any{"path": path, "operations": operations, "keys": keys}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
