# Python: an environment, packages with and without C, tests, a small service.
as_dev python3 -m venv env
as_dev env/bin/pip install --quiet requests flask pytest pyyaml
as_dev env/bin/pip install --quiet --no-binary markupsafe --force-reinstall markupsafe
as_dev env/bin/pip list
as_dev env/bin/pip freeze
as_dev env/bin/pip check
as_dev env/bin/python -c 'import requests, flask, yaml; print(requests.__version__)'
as_dev sh -c 'mkdir -p pyproject/tests && cd pyproject && printf "def test_one():\n    assert 1 + 1 == 2\n" > tests/test_one.py && ../env/bin/python -m pytest -q'
as_dev sh -c 'cd pyproject && printf "[project]\nname = \"tool\"\nversion = \"1\"\n[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n" > pyproject.toml && mkdir -p tool && touch tool/__init__.py && ../env/bin/pip install --quiet --editable .'
as_dev env/bin/python -m compileall -q pyproject
as_dev env/bin/pip uninstall --quiet --yes pyyaml
as_dev sh -c 'mkdir -p served && cp project.tar.gz served && printf "#!/bin/sh\nid -u; date\n" > served/bootstrap.sh'
as_dev timeout 20 sh -c 'env/bin/python -m http.server --bind 127.0.0.1 --directory served 8099 & pid=$!; sleep 1
    curl --silent http://127.0.0.1:8099/ > page.html
    wget --quiet -O project-again.tar.gz http://127.0.0.1:8099/project.tar.gz
    wget --quiet http://127.0.0.1:8099/bootstrap.sh && chmod +x bootstrap.sh && ./bootstrap.sh
    kill $pid; wait'
as_dev sh -c 'mkdir -p unpacked && tar -xzf project-again.tar.gz -C unpacked && cd unpacked && sh ./configure && make --jobs=2 units > make.log && ./units'
as_dev env/bin/python -c 'import multiprocessing as m; print(sum(m.Pool(2).map(abs, range(100))))'
as_dev sqlite3 notes.db 'create table n(x); insert into n values (1); select * from n;'
