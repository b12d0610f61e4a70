# A project begins.
as_dev git config --global user.name Dev
as_dev git config --global user.email dev@localhost
as_dev git init --quiet --initial-branch=main project
as_dev python3 "$WORK/generate.py" project 260
in_project git add -A
in_project git commit --quiet --message 'a project of many files'
for topic in parser cache report; do
    in_project git checkout --quiet -b "$topic"
    in_project sh -c "printf '// %s\n' $topic >> src/unit_1.c && git commit --quiet -a -m $topic"
    in_project git checkout --quiet main
done
in_project git merge --quiet --no-edit parser
in_project git log --oneline --graph --all
in_project git diff --stat main cache
in_project git stash list
in_project git gc --quiet
as_dev git clone --quiet --bare project project.git
as_dev git clone --quiet project.git clone
in_project git grep -n unit_1
in_project git blame --line-porcelain src/unit_1.c
