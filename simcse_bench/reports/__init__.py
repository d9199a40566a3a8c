"""From saved JSON to tables, plots and pages; no sentence is scored here, at most a mean over seeds is taken.

Open ``report`` first: what a saved evaluation holds.

- ``report``        Report: every number with what it came from
- ``pair_records``  the pairs beside a report: sentences, gold score, cosine
- ``table``         a table as Markdown, LaTeX, CSV
- ``scores``        tables of reports: one report, a leaderboard
- ``speed``         a benchmark's figures
- ``family``        the SimCSE family's published rows and ours in one table
- ``frames``        saved results as pandas frames: ``read_results``, ``read_pairs``
- ``summary``       what a sweep's summary holds
- ``ablation``      table, plot and page of a sweep
- ``geometry``      tables, plots and page of analyses
- ``overlap``       evaluation sentences found in training text, and the marks they put on leaderboards
- ``robustness``    tables and page of sentences changed by rule
- ``robustness_plots`` its plots
- ``mteb``          mteb's scores saved and drawn, apart from the paper's
- ``reproduction``  every table of a paper beside ours
- ``arm_plot``      the plot of an ablation
- ``plots``         the other plots; SVG and PNG
- ``page``          one self-contained HTML page
- ``folder``        a results folder read whole: ``read_folder``
- ``site``          a results folder drawn anew or checked; its index.html
- ``model_page``    a page on one model, HTML and Markdown: ``write_model_page``
- ``model_parts``   its parts: scores, geometry, robustness, mteb's tasks, speed
- ``standings``     the site's leaderboards as data: seeds, ranks, published rows
- ``panels``        the site's figures as data: statements, ablations, geometry, robustness
- ``again``         the command that makes a saved number again
"""
