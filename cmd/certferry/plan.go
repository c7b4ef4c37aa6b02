// This file holds the command that says what a working tree would change on the hub.

package main

import (
	"crypto/sha1" //nolint:gosec // G505: Git names files by SHA-1; nothing is trusted because of it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func planCommand() *cli.Command {
	return &cli.Command{
		Name: "plan", Usage: "say what pushing a working tree would change",
		ArgsUsage: "[DIR]",
		Description: "Compares certificates/, issuers/, servers/ and README.md below DIR (the current folder by default) with the hub's\n" +
			"main and prints what a push would lead to. Nothing is changed. Exit code 0: changes, all good; 1: faults, or\n" +
			"failed; 3: there is nothing to change.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "the `COMMIT` of main that the tree was made from, as git merge-base finds it (default: the newest)"},
		},
		Action: plan,
	}
}

func plan(c *cli.Context) error {
	dir, err := treeArgument(c)
	if err != nil {
		return err
	}
	tree, err := readTree(dir)
	if err != nil {
		return err
	}
	if len(tree.files) == 0 && len(tree.faults) == 0 {
		return fmt.Errorf("plan %s: this is no working tree of the hub's main: it holds none of its files", dir)
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	base, err := hub.PlanBase(c.Context, c.String("base"))
	if err != nil {
		return fmt.Errorf("plan %s: %w", dir, err)
	}
	request := apiv1.PlanRequest{Base: base.Commit, Files: changedFiles(tree, base)}
	if len(request.Files) == 0 && len(tree.faults) == 0 {
		return errors.Join(errNothingToDo, fmt.Errorf("plan %s: it is what the hub's main is", dir))
	}
	result, err := hub.Plan(c.Context, request)
	if client.StatusOf(err) == http.StatusRequestEntityTooLarge {
		return fmt.Errorf("plan %s: %s differ, more than one plan can hold; push in parts", dir, count(len(request.Files), "file"))
	}
	if err != nil {
		return fmt.Errorf("plan %s: %w", dir, err)
	}
	for _, f := range tree.faults {
		result.Faults = append(result.Faults, apiv1.PlanFault{Path: f.Path, Line: f.Line, Message: f.Message})
	}
	if err := render(c, result, func(w io.Writer) { printPlan(w, result) }); err != nil {
		return err
	}
	switch {
	case len(result.Faults) > 0:
		return fmt.Errorf("plan %s: the hub would refuse this: %s", dir, count(len(result.Faults), "fault"))
	case result.Changed == 0:
		return errors.Join(errNothingToDo, fmt.Errorf("plan %s: main has all of it already", dir))
	}
	return nil
}

// changedFiles are those that differ from base, and those that are gone.
func changedFiles(tree *workTree, base apiv1.PlanBase) []apiv1.PlanFile {
	files := []apiv1.PlanFile{}
	for _, path := range slices.Sorted(maps.Keys(tree.files)) {
		if base.Files[path] != blobID(tree.files[path]) {
			files = append(files, apiv1.PlanFile{Path: path, Content: string(tree.files[path])})
		}
	}
	unusable := map[string]bool{}
	for _, f := range tree.faults {
		unusable[f.Path] = true
	}
	for _, path := range slices.Sorted(maps.Keys(base.Files)) {
		if _, there := tree.files[path]; !there && !unusable[path] {
			files = append(files, apiv1.PlanFile{Path: path, Removed: true})
		}
	}
	return files
}

// blobID is Git's name of a file's content.
func blobID(data []byte) string {
	h := sha1.New() //nolint:gosec // G401: see the import
	_, _ = io.WriteString(h, "blob "+strconv.Itoa(len(data))+"\x00")
	_, _ = h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

func printPlan(w io.Writer, p apiv1.Plan) {
	_, _ = fmt.Fprintf(w, "on main at %s, %s:\n", short(p.Commit), count(p.Changed, "changed file"))
	for _, f := range p.Faults {
		if f.Line > 0 {
			_, _ = fmt.Fprintf(w, "%s:%d: %s\n", f.Path, f.Line, f.Message)
		} else {
			_, _ = fmt.Fprintf(w, "%s: %s\n", f.Path, f.Message)
		}
	}
	for _, line := range p.Summary {
		_, _ = fmt.Fprintln(w, line)
	}
}
