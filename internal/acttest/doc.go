// Package acttest holds no code of the action: its tests run the project's
// workflows with nektos/act on a Docker engine, by testdata/act/run, and read
// from act's log what no step of a workflow can see of itself: annotations,
// masks, and whether anything was left behind.
package acttest
