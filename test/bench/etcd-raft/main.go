// Three members of a group by etcd's Raft library in one process, with its memory storage and messages handed over
// directly: the yardstick of `npm run bench -- --only raft`. Each line of the input asks for a round, as JSON; each line
// of the output is what it took. All three members are driven by one goroutine, which is the quickest way on few cores.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"syscall"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

type asked struct {
	Count    int `json:"count"`
	InFlight int `json:"inFlight"`
	Bytes    int `json:"bytes"`
	Seed     int `json:"seed"`
	// All that may be proposed at a time in one message, or each on its own.
	Together bool `json:"together"`
}

type took struct {
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpuSeconds"`
	Result     string  `json:"result"`
}

// The log of a member that runs for long is not as long: it forgets when it has as many entries, except the last ones.
const (
	compactEvery = 10_000
	compactKeeps = 1_000
)

// How many different proposals there are; they are made before the clock runs.
const different = 1024

type member struct {
	node    *raft.RawNode
	storage *raft.MemoryStorage
	// What a state machine would have been given.
	applied [][]byte
	// The log has forgotten everything up to here.
	base uint64
}

type group struct {
	members map[uint64]*member
	leader  *member
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func newGroup() *group {
	logger := &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)}
	g := &group{members: map[uint64]*member{}}
	voters := []uint64{1, 2, 3}
	for _, id := range voters {
		storage := raft.NewMemoryStorage()
		must(storage.ApplySnapshot(pb.Snapshot{Metadata: pb.SnapshotMetadata{
			Index: 1, Term: 1, ConfState: pb.ConfState{Voters: voters},
		}}))
		node, err := raft.NewRawNode(&raft.Config{
			ID:              id,
			ElectionTick:    10,
			HeartbeatTick:   1,
			Storage:         storage,
			Applied:         1,
			MaxSizePerMsg:   1 << 20,
			MaxInflightMsgs: 256,
			CheckQuorum:     true,
			PreVote:         true,
			Logger:          logger,
		})
		must(err)
		g.members[id] = &member{node: node, storage: storage}
	}
	g.leader = g.members[1]
	must(g.leader.node.Campaign())
	g.settle()
	if g.leader.node.BasicStatus().RaftState != raft.StateLeader {
		log.Fatal("nobody leads")
	}
	return g
}

func (one *member) compact(applied uint64) {
	if applied-one.base < compactEvery+compactKeeps {
		return
	}
	one.base = applied - compactKeeps
	must(one.storage.Compact(one.base))
}

// One member after the other does what it has to do. False when nobody had anything.
func (g *group) pump() bool {
	busy := false
	for id := uint64(1); id <= 3; id++ {
		one := g.members[id]
		if !one.node.HasReady() {
			continue
		}
		busy = true
		ready := one.node.Ready()
		if !raft.IsEmptyHardState(ready.HardState) {
			must(one.storage.SetHardState(ready.HardState))
		}
		must(one.storage.Append(ready.Entries))
		for _, message := range ready.Messages {
			must(g.members[message.To].node.Step(message))
		}
		for _, entry := range ready.CommittedEntries {
			if entry.Type == pb.EntryNormal && len(entry.Data) > 0 {
				one.applied = append(one.applied, entry.Data)
			}
		}
		one.node.Advance(ready)
		if last := len(ready.CommittedEntries); last > 0 {
			one.compact(ready.CommittedEntries[last-1].Index)
		}
	}
	return busy
}

func (g *group) settle() {
	for g.pump() {
	}
}

func (g *group) propose(data [][]byte, together bool) {
	if together {
		entries := make([]pb.Entry, len(data))
		for at, one := range data {
			entries[at].Data = one
		}
		must(g.leader.node.Step(pb.Message{Type: pb.MsgProp, From: 1, Entries: entries}))
		return
	}
	for _, one := range data {
		must(g.leader.node.Propose(one))
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	of := func(time syscall.Timeval) float64 { return float64(time.Sec) + float64(time.Usec)/1e6 }
	return of(usage.Utime) + of(usage.Stime)
}

func resultOf(applied [][]byte) string {
	hash := sha256.New()
	for _, data := range applied {
		hash.Write(data)
		hash.Write([]byte("\n"))
	}
	return hex.EncodeToString(hash.Sum(nil))[:16]
}

func round(work asked) took {
	proposals := make([][]byte, different)
	for n := range proposals {
		data := []byte(fmt.Sprintf("%d.%d.", work.Seed, n))
		proposals[n] = append(data, bytes.Repeat([]byte("x"), work.Bytes-len(data))...)
	}
	g := newGroup()
	runtime.GC()
	cpuBegan, began := cpuSeconds(), time.Now()
	next := make([][]byte, 0, work.InFlight)
	for proposed := 0; len(g.leader.applied) < work.Count; {
		next = next[:0]
		for proposed < work.Count && proposed-len(g.leader.applied) < work.InFlight {
			next = append(next, proposals[proposed%different])
			proposed++
		}
		if len(next) > 0 {
			g.propose(next, work.Together)
		}
		if !g.pump() {
			log.Fatalf("stands still after %d of %d", len(g.leader.applied), work.Count)
		}
	}
	seconds, cpu := time.Since(began).Seconds(), cpuSeconds()-cpuBegan
	g.settle()
	result := resultOf(g.leader.applied)
	for id, one := range g.members {
		if resultOf(one.applied) != result {
			log.Fatalf("member %d has applied something else", id)
		}
	}
	return took{Seconds: seconds, CPUSeconds: cpu, Result: result}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var work asked
		must(json.Unmarshal(lines.Bytes(), &work))
		must(answers.Encode(round(work)))
	}
	must(lines.Err())
}
