// The load on etcd, in a process of its own: the official client, so many of it (each has one connection), and on them so many callers
// with one put in flight each. It takes jobs as lines of JSON, and gives their results so.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

type job struct {
	Clients     int    `json:"clients"`
	Connections int    `json:"connections"`
	Requests    int    `json:"requests"`
	Job         string `json:"job"`
}

type load struct {
	Seconds float64   `json:"seconds"`
	TookMs  []float64 `json:"tookMs"`
}

// About what a fact of a drain holds.
var value = strings.Repeat("v", 200)

func run(connections []*clientv3.Client, wanted job) (load, error) {
	each := wanted.Requests / wanted.Clients
	took := make([][]float64, wanted.Clients)
	failed := make(chan error, wanted.Clients)
	var all sync.WaitGroup
	began := time.Now()
	for caller := 0; caller < wanted.Clients; caller++ {
		all.Add(1)
		go func() {
			defer all.Done()
			client := connections[caller%len(connections)]
			took[caller] = make([]float64, 0, each)
			for n := 0; n < each; n++ {
				sent := time.Now()
				key := fmt.Sprintf("host/h%d", caller)
				if _, err := client.Put(context.Background(), key, wanted.Job+strconv.Itoa(n)+value); err != nil {
					failed <- err
					return
				}
				took[caller] = append(took[caller], float64(time.Since(sent).Microseconds())/1000)
			}
		}()
	}
	all.Wait()
	seconds := time.Since(began).Seconds()
	select {
	case err := <-failed:
		return load{}, err
	default:
	}
	merged := make([]float64, 0, wanted.Requests)
	for _, one := range took {
		merged = append(merged, one...)
	}
	return load{seconds, merged}, nil
}

// Arguments: the leader's client URL, and the file of the authority's certificate.
func main() {
	authority, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		log.Fatal("no certificate of an authority in ", os.Args[2])
	}
	connect := func() *clientv3.Client {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{os.Args[1]},
			DialTimeout: 10 * time.Second,
			TLS:         &tls.Config{RootCAs: pool},
		})
		if err != nil {
			log.Fatal(err)
		}
		// The first call connects, which is no part of what is measured.
		if _, err := client.Get(context.Background(), "connected"); err != nil {
			log.Fatal(err)
		}
		return client
	}
	var connections []*clientv3.Client
	jobs := bufio.NewScanner(os.Stdin)
	results := json.NewEncoder(os.Stdout)
	for jobs.Scan() {
		var wanted job
		if err := json.Unmarshal(jobs.Bytes(), &wanted); err != nil {
			log.Fatal(err)
		}
		for len(connections) < wanted.Connections {
			connections = append(connections, connect())
		}
		result, err := run(connections[:wanted.Connections], wanted)
		if err != nil {
			log.Fatal(err)
		}
		if err := results.Encode(result); err != nil {
			log.Fatal(err)
		}
	}
}
