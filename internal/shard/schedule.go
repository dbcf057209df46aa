package shard

import (
	"context"
	"sync"
)

// Job runs the script with an index of the list. It calls settled, at most
// once and from any goroutine, as soon as it is known whether other guests can
// start from a saved machine, be it that there is one or that there never will
// be. A result of false says that every other script would fail in the same way.
type Job func(index int, settled func()) (goOn bool)

// Schedule runs count jobs, at most limit at once and in their order, and waits
// for them. As long as nothing is settled only one runs, since the others would
// boot a guest each, and could have started from what the first one saves. When
// a job ends with goOn false before it has settled anything, or ctx ends, no
// further job is started. It returns how many were.
func Schedule(ctx context.Context, count, limit int, job Job) (started int) {
	for next := range count {
		if ctx.Err() != nil {
			return next
		}
		settled := make(chan struct{})
		ended := make(chan bool, 1)
		go func() { ended <- job(next, sync.OnceFunc(func() { close(settled) })) }()
		select {
		case <-settled:
			return pool(ctx, next+1, count, limit, job, ended)
		case goOn := <-ended:
			select {
			case <-settled: // both at once
				return pool(ctx, next+1, count, limit, job, nil)
			default:
			}
			if !goOn {
				return next + 1
			}
		}
	}
	return count
}

// pool runs the jobs from next on, beside one that runs already, which first
// tells the end of; nil: there is none.
func pool(ctx context.Context, next, count, limit int, job Job, first <-chan bool) int {
	var wg sync.WaitGroup
	slots := make(chan struct{}, limit)
	if first != nil {
		slots <- struct{}{}
		wg.Go(func() {
			<-first
			<-slots
		})
	}
	defer wg.Wait()
	for i := next; i < count; i++ {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return i
		}
		if ctx.Err() != nil { // both could be had
			return i
		}
		wg.Go(func() {
			job(i, func() {})
			<-slots
		})
	}
	return count
}
